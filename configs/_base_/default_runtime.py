# What every run has in common: logs, checkpoints, previews, closing words.
default_scope = 'mmhiper'

default_hooks = dict(
    # Stops at the first NaN or infinite number; what is saved is finite.
    finite=dict(type='FiniteHook', interval=100),
    runtime_info=dict(type='LazyRuntimeInfoHook'),  # no wait per iteration
    logger=dict(
        type='LoggerHook',
        interval=100,
        interval_exp_name=1_000_000,  # the name is in the path of the log
    ),
    checkpoint=dict(
        type='CheckpointHook',
        interval=100,  # kilobytes each; edit from any of them
        by_epoch=False,
        # A run may be killed at any moment: a file is complete or not there.
        backend_args=dict(backend='mmhiper_atomic'),
    ),
)
custom_hooks = [
    dict(type='PlainCheckpointHook'),
    dict(type='ExportHook'),
    dict(type='LossCurveHook', interval=100),
    dict(type='PreviewHook'),  # as often as 15 % of the training pay for
    dict(type='NextStepsHook'),
]
param_scheduler = []  # a constant learning rate

# The loss of one iteration depends on its random timestep more than on
# progress: log the mean over an interval.
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=100)
log_level = 'INFO'
visualizer = dict(
    type='LazyVisualizer', vis_backends=[dict(type='LocalVisBackend')]
)

env_cfg = dict(
    dist_cfg=dict(
        backend='nccl',  # without CUDA: gloo
        # Seconds until a process that does not answer ends the run; the
        # others wait for the first one while it draws a preview.
        timeout=1800,
    )
)
# What the .safetensors files say of themselves for user interfaces, beside
# what is known: a licence only if you name one ('cc-by-4.0').
modelspec = dict(title=None, author=None, license=None, tags=None)
load_from = None
resume = False
