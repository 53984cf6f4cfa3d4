# The recipe of CLIP4Clip for InfoNCE: its scale is CLIP's there, and learns
# as slowly as CLIP
_base_ = ['./bertadam_5e.py']

optim_wrapper = dict(
    paramwise_cfg=dict(
        rules=[
            dict(pattern=r'^(text|video)_encoder\.', lr_mult=1e-3),
            dict(pattern=r'^head\.loss_match\.log_scale$', lr_mult=1e-3),
            dict(pattern='bias', decay_mult=0.0),
        ]
    )
)
