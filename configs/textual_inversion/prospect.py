"""ProSpect (arXiv 2305.16225): a row per stage of the noise.

Command  bash tools/dist_train.sh configs/textual_inversion/prospect.py 1
"""

_base_ = './textual_inversion.py'

model = dict(
    type='ProSpect',
    num_stages=10,  # as the paper
)
work_dir = 'work_dirs/prospect'
