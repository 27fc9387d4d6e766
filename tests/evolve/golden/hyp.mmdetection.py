# Hyps for MMDetection 3.
# python MMDETECTION_FOLDER/tools/train.py hyp.mmdetection.py
#
_base_ = "YOUR_CONFIG.py"  # the config that is to be trained with these hyps
train_cfg = dict(max_epochs=20)
randomness = dict(seed=7)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="SGD", lr=0.0082712, momentum=0.80313, nesterov=True, weight_decay=7.012625e-05), paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, begin=0, end=2.4294, by_epoch=True, convert_to_iter_based=True),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.049226, begin=14.0, end=20, by_epoch=True, convert_to_iter_based=True),
]
# For the train_pipeline of that config, in place of its own warps and flips:
evolved_transforms = [
    dict(type="RandomAffine", max_rotate_degree=0.16249, max_translate_ratio=0.1983, scaling_ratio_range=(0.77941, 1.22059), max_shear_degree=0.34812),
    dict(type="RandomFlip", prob=[0.042451404409000006, 0.051945404409, 0.002441595591], direction=["horizontal", "vertical", "diagonal"]),
]
