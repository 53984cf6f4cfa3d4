"""Small backbones of every library and layout."""

from __future__ import annotations

from typing import Any

#: Length of the clips, and side of the frames in pixels.
FRAMES, SIZE = 4, 32

_RESNET3D = dict(pretrained=None, pretrained2d=False, base_channels=8)


def _frames(backbone: dict, **options: Any) -> dict[str, Any]:
    return dict(backbone=backbone, image_size=SIZE, **options)


def _clip(backbone: dict, **options: Any) -> dict[str, Any]:
    return dict(
        backbone=backbone,
        layout='clip',
        **dict(image_size=SIZE, num_input_frames=FRAMES, **options),
    )


#: Arguments of ``RegisteredEncoder`` without its width, by name.
ENCODERS: dict[str, dict[str, Any]] = {
    'resnet': _frames(dict(type='mmaction.ResNet', depth=18, pretrained=None)),
    'resnet stages': _frames(
        dict(
            type='mmaction.ResNet',
            depth=18,
            pretrained=None,
            out_indices=(1, 3),
        )
    ),
    'tsm': _frames(
        dict(
            type='mmaction.ResNetTSM',
            depth=18,
            pretrained=None,
            num_segments=FRAMES,
        ),
        num_input_frames=FRAMES,
    ),
    'timm resnet': _frames(dict(type='timm.resnet18')),
    'timm vit': _frames(dict(type='timm.test_vit', img_size=SIZE)),
    'timm tokens': _frames(
        dict(type='timm.test_vit', img_size=SIZE, global_pool='')
    ),
    'open_clip vit': dict(
        backbone=dict(
            type='open_clip',
            arch=dict(
                embed_dim=12,
                vision_cfg=dict(
                    layers=1,
                    width=16,
                    head_width=8,
                    patch_size=8,
                    image_size=SIZE,
                ),
            ),
        )
    ),
    'open_clip siglip': dict(
        backbone=dict(
            type='open_clip',
            arch=dict(
                embed_dim=64,
                vision_cfg=dict(
                    image_size=160,
                    timm_model_name='test_vit',
                    timm_model_pretrained=False,
                    timm_pool='map',
                    timm_proj='none',
                ),
            ),
        )
    ),
    'swin3d': _clip(
        dict(
            type='mmaction.SwinTransformer3D',
            arch=dict(embed_dims=8, depths=[2, 2], num_heads=[2, 2]),
            out_indices=(1,),
            window_size=(2, 4, 4),
            drop_path_rate=0.0,  # processes would draw different paths
        )
    ),
    'videomae': _clip(
        dict(
            type='mmaction.VisionTransformer',
            img_size=SIZE,
            patch_size=16,
            embed_dims=16,
            depth=1,
            num_heads=2,
            num_frames=FRAMES,
        )
    ),
    'videomae map': _clip(
        dict(
            type='mmaction.VisionTransformer',
            img_size=SIZE,
            patch_size=16,
            embed_dims=16,
            depth=1,
            num_heads=2,
            num_frames=FRAMES,
            return_feat_map=True,
        )
    ),
    'uniformerv2': _clip(
        dict(
            type='mmaction.UniFormerV2',
            input_resolution=SIZE,
            patch_size=16,
            width=16,
            layers=2,
            heads=2,
            t_size=FRAMES,
            return_list=[1],
            n_layers=1,
            n_dim=16,
            n_head=2,
            mlp_dropout=[0.5],
            clip_pretrained=False,
        )
    ),
    'resnet3d': _clip(dict(type='mmaction.ResNet3d', depth=18, **_RESNET3D)),
    'slowonly': _clip(
        dict(type='mmaction.ResNet3dSlowOnly', depth=50, **_RESNET3D)
    ),
    'slowfast': _clip(
        dict(
            type='mmaction.ResNet3dSlowFast',
            pretrained=None,
            resample_rate=2,
            speed_ratio=2,
            channel_ratio=4,
            slow_pathway=dict(
                type='resnet3d',
                depth=18,
                lateral=True,
                conv1_kernel=(1, 7, 7),
                conv1_stride_t=1,
                pool1_stride_t=1,
                inflate=(0, 0, 1, 1),
                **_RESNET3D,
            ),
            fast_pathway=dict(
                type='resnet3d',
                depth=18,
                lateral=False,
                conv1_kernel=(5, 7, 7),
                conv1_stride_t=1,
                pool1_stride_t=1,
                pretrained=None,
                pretrained2d=False,
                base_channels=2,
            ),
        )
    ),
}
#: Temporal steps those of clips make of the frames.
STEPS = {
    'swin3d': 2,
    'videomae': 1,
    'videomae map': 2,
    'uniformerv2': 1,
    'resnet3d': 2,
    'slowonly': 4,
    'slowfast': 2,
}
