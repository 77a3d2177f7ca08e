"""Interpolation on the dog of data/dog.png."""

_base_ = [
    '../../../configs/_base_/default_runtime.py',
    '../../../configs/_base_/sd_v1_4.py',
    '../../../configs/_base_/source_image.py',
]
custom_imports = dict(imports=['interpolation'])

model = dict(
    type='TextInterpolation',
    source_text='a standing dog on the grass',
    target_text='a sitting dog on the grass',
)
train_dataloader = dict(dataset=dict(img='data/dog.png'))

optim_wrapper = dict(optimizer=dict(type='Adam', lr=1e-3))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=500)
default_hooks = dict(checkpoint=dict(interval=500))
custom_hooks = [
    dict(type='PlainCheckpointHook'),
    dict(type='ExportHook'),
    dict(type='PreviewHook', interval=500),
    dict(type='NextStepsHook'),
]
randomness = dict(seed=0)
