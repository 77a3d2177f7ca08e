"""HiPer on Stable Diffusion XL: 1024 pixels, positions 2048 wide.

Command  bash tools/dist_train.sh configs/hiper/dog_sdxl.py 1
Cost     not measured here; --cfg-options model.sd.dtype=bf16 halves weights
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/sdxl_base.py',
    '../_base_/source_image.py',
]

model = dict(
    type='HiPer',
    sd=dict(
        offload=True,  # texts and picture are encoded once, then idle
        gradient_checkpointing=True,  # activations of 1024 pixels
    ),
    n_hiper=5,
    source_text='a standing dog',
    target_text='a sitting dog',
)
train_dataloader = dict(dataset=dict(img='data/dog.png'))

# the paper's rate and length for Stable Diffusion 1.x, not tuned for XL
optim_wrapper = dict(optimizer=dict(type='Adam', lr=5e-3))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1200)
randomness = dict(seed=200000)
