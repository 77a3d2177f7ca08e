# One source image, or K of them: `img=[...]` with `batch_size=K`. The
# pipeline does not name a resolution; the picture is brought to the
# backbone's own when it enters the model. `mask='MASK.png'` (white is the
# subject) has the loss count the subject alone.
train_dataloader = dict(
    batch_size=1,  # all K images take part in every iteration
    num_workers=0,  # the decoded image is kept: nothing to wait for
    sampler=dict(type='InfiniteSampler', shuffle=False),
    dataset=dict(
        type='SourceImageDataset',
        pipeline=[
            dict(type='LoadUprightImage'),
            # The largest centred square; crop='none' for all of the picture,
            # 'subject' for what a mask shows, (x0, y0, x1, y1) for a box.
            dict(type='SquareCrop'),
            dict(type='PackSourceImage'),
        ],
    ),
)
