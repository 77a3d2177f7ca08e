"""StyleDiffusion (arXiv 2303.15649) on one dog, in the paper's setting.

Command  bash tools/dist_train.sh configs/style_diffusion/dog.py 1
Cost     24 s on 2 CPU cores with mini-sd: at most 215 iterations; one
         process, since each timestep starts where the one before ended
Result   30 mapping networks and the inverted picture: about 10 MB for
         Stable Diffusion v1-4
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/sd_v1_4.py',
    '../_base_/source_image.py',
]

model = dict(
    type='StyleDiffusion',
    image_encoder=dict(
        pretrained='openai/clip-vit-base-patch16',  # as wide as the texts
        without_cuda='mini-sd',
    ),
    source_text='a standing dog on the grass',
    target_text='a standing cat on the grass',  # of the preview
    num_steps=30,
    # the quick setting of the official README; its command line takes 100,
    # see dog_quality.py
    num_inner_steps=20,
    attention_weight=1.0,
    guidance_scale=7.5,
)
train_dataloader = dict(dataset=dict(img='data/dog.png'))

optim_wrapper = dict(optimizer=dict(type='Adam', lr=1e-2))
train_cfg = dict(type='CurriculumLoop')
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=50))
custom_hooks = [
    dict(type='CurriculumHook'),
    dict(type='PlainCheckpointHook'),
    dict(type='ExportHook'),
    dict(type='LossCurveHook'),
    dict(type='PreviewHook', interval=1_000_000),  # at the end only
    dict(type='NextStepsHook'),
]
# the loss of this step, not a mean over timesteps, in digits that show it
log_processor = dict(window_size=1, num_digits=7)
randomness = dict(seed=200000)
work_dir = 'work_dirs/style_diffusion_dog'  # configs/hiper has a dog too
