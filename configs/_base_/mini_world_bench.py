"""What ``mmhiper bench`` measures too: what the judge of the mini world says.

It is beside the package, and found by ``PYTHONPATH=tools/mini_sd``.
"""

custom_imports = dict(imports=['judge_metric'])
bench_metrics = [dict(type='MiniWorldEdit')]
