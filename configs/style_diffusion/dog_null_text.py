"""Null-text inversion (arXiv 2211.09794) on the same dog: the baseline.

Command  bash tools/dist_train.sh configs/style_diffusion/dog_null_text.py 1
Cost     at most 500 iterations
Result   50 unconditional texts and the inverted picture
"""

_base_ = './dog.py'

model = dict(
    _delete_=True,
    type='NullTextInversion',
    sd={{_base_.model.sd}},
    source_text={{_base_.model.source_text}},
    target_text={{_base_.model.target_text}},
    # the steps of its own paper, which are not StyleDiffusion's
    num_steps=50,
    num_inner_steps=10,
    inner_steps='constant',
    guidance_scale=7.5,
)
work_dir = 'work_dirs/null_text_dog'
