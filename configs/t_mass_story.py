_base_ = ['t_mass/t-mass_vit-tiny-p8-res24_1xb32-u8-12e_story-rgb.py']
