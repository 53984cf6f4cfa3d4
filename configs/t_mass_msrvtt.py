_base_ = [
    't_mass/t-mass_vit-base-p32-res224-clip-pre_1xb32-u12-5e_msrvtt-9k-rgb.py'
]
