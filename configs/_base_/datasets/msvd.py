# MSVD: every caption is a query
_base_ = ['./msrvtt_9k.py']

data_root = 'data/msvd/'
train_dataloader = dict(
    dataset=dict(dataset=dict(data_root=data_root, ann_file='train.json'))
)
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file='val.json'))
test_dataloader = dict(dataset=dict(data_root=data_root, ann_file='test.json'))
