_base_ = [
    './eaglenet_vit-base-p16-res224-clip-pre_2xb32-u12-5e_msrvtt-9k-rgb.py'
]

# low-rank updates of every linear map of CLIP's blocks instead of CLIP
# itself; needs `pip install 'eaglenet_mm[lora]'`
lora = dict(r=16, lora_alpha=32)
model = dict(text_encoder=dict(lora=lora), video_encoder=dict(lora=lora))
# they start at zero and learn as fast as the head
optim_wrapper = dict(
    paramwise_cfg=dict(rules=[dict(pattern='bias', decay_mult=0.0)])
)
