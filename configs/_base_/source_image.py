# One source image, or K of them: `img=[...]` with `batch_size=K`. The
# pipeline does not name a resolution; the picture is brought to the
# backbone's own when it enters the model.
train_dataloader = dict(
    batch_size=1,  # all K images take part in every iteration
    num_workers=0,  # the decoded image is kept: nothing to wait for
    sampler=dict(type='InfiniteSampler', shuffle=False),
    dataset=dict(
        type='SourceImageDataset',
        pipeline=[
            dict(type='LoadUprightImage'),
            # The largest centred square; box=(left, top, size) for another.
            dict(type='SquareCrop'),
            dict(type='PackSourceImage'),
        ],
    ),
)
