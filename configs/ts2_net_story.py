_base_ = ['ts2_net/ts2-net_vit-tiny-p8-res24_1xb32-u8-12e_story-rgb.py']
