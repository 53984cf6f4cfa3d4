_base_ = ['wti/wti_vit-tiny-p8-res32_1xb64-u6-16e_toy-rgb.py']
