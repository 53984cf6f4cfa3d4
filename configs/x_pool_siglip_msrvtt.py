_base_ = ['backbone_mixes/x-pool_siglip-base_1xb32-u12-5e_msrvtt-9k-rgb.py']
