"""Extended Textual Inversion, P+ (arXiv 2303.09522): a row per attention layer.

Command  bash tools/dist_train.sh configs/textual_inversion/extended.py 1
"""

_base_ = './textual_inversion.py'

model = dict(
    type='ExtendedTextualInversion',
)
work_dir = 'work_dirs/extended_textual_inversion'
