"""Floor 2: where events are kept: schema, log, checkpoints, work queue, leases, blobs, migrations; knows no topics and no event classes."""
