"""HiPer (arXiv 2303.08767) on one dog, with the paper's setting.

Command  bash tools/dist_train.sh configs/hiper/dog.py 1
Cost     64 s on 2 CPU cores with mini-sd
Result   an embedding of N=5 positions, 3 KB; quality in README.md
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/sd_v1_4.py',
    '../_base_/source_image.py',
]

model = dict(
    type='HiPer',
    n_hiper=5,  # objects and animals
    source_text='a standing dog',
    target_text='a sitting dog',  # of the previews; edit with any text later
    strength=0.8,
)
train_dataloader = dict(dataset=dict(img='data/dog.png'))

optim_wrapper = dict(
    optimizer=dict(type='Adam', lr=5e-3, betas=(0.9, 0.999), eps=1e-8)
)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1200)
randomness = dict(seed=200000)
