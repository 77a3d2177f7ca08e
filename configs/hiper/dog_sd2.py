"""HiPer on Stable Diffusion v2-1: 768 pixels, velocity in place of noise.

Command  bash tools/dist_train.sh configs/hiper/dog_sd2.py 1
Cost     not measured here
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/sd_v2_1.py',
    '../_base_/source_image.py',
]

model = dict(
    type='HiPer',
    n_hiper=5,
    source_text='a standing dog',
    target_text='a sitting dog',
)
train_dataloader = dict(dataset=dict(img='data/dog.png'))

# the paper's rate and length for Stable Diffusion 1.x, not tuned for 2.x
optim_wrapper = dict(optimizer=dict(type='Adam', lr=5e-3))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1200)
randomness = dict(seed=200000)
