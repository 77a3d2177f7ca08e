"""The paper's own length and rate (arXiv 2208.01618, sec. 4).

Command  bash tools/dist_train.sh configs/textual_inversion/paper.py 1
"""

_base_ = './textual_inversion.py'

optim_wrapper = dict(optimizer=dict(lr=5e-3))
train_cfg = dict(max_iters=5000)
