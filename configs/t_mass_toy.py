_base_ = ['t_mass/t-mass_vit-tiny-p8-res32_1xb64-u6-16e_toy-rgb.py']
