_base_ = [
    'text_proxy/text-proxy_vit-base-p32-res224-clip-pre_2xb64-u12-120e_msrvtt-9k-rgb.py'
]
