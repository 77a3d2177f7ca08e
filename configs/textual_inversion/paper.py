"""The paper's length and base rate (arXiv 2208.01618, sec. 4), and no more.

Command  bash tools/dist_train.sh configs/textual_inversion/paper.py 1
"""

_base_ = './textual_inversion.py'

# The paper multiplies it by 2 GPUs and 4 pictures, for the wider table of
# latent diffusion.
optim_wrapper = dict(optimizer=dict(lr=5e-3))
train_cfg = dict(max_iters=5000)
custom_hooks = [  # those of textual_inversion.py without HoldNormHook
    dict(type='PlainCheckpointHook'),
    dict(type='ExportHook'),
    dict(type='LossCurveHook', interval=500),
    dict(type='PreviewHook', interval=500),
    dict(type='NextStepsHook'),
]
