"""What librdkafka's clients do with transactions. Ends with "done", or raises."""
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

servers = sys.argv[1]


def check(ok, what):
    if not ok:
        raise AssertionError(what)
    print("ok:", what)


def consumer(group, isolation="read_committed"):
    return Consumer({"bootstrap.servers": servers, "group.id": group, "isolation.level": isolation,
                     "auto.offset.reset": "earliest", "enable.auto.commit": False, "enable.partition.eof": True})


def read(topic, isolation="read_committed"):
    c = consumer("reader", isolation)
    c.assign([TopicPartition(topic, 0, 0)])
    values = []
    while True:
        m = c.poll(10)
        if m is None or m.error():
            break
        values.append(m.value().decode())
    c.close()
    return values


admin = AdminClient({"bootstrap.servers": servers})
for f in admin.create_topics([NewTopic("pin", 1, 1), NewTopic("pout", 1, 1)]).values():
    f.result()

p = Producer({"bootstrap.servers": servers, "transactional.id": "py-writer"})
p.init_transactions(20)
want = []
for t in range(12):
    p.begin_transaction()
    for i in range(5):
        p.produce("pin", f"{t}-{i}")
    if t % 3 == 2:
        p.flush()
        p.abort_transaction(20)
    else:
        p.commit_transaction(20)
        want += [f"{t}-{i}" for i in range(5)]
check(read("pin") == want, "read_committed shows what was committed, in order")
check(len(read("pin", "read_uncommitted")) == 60, "read_uncommitted shows all")

c = consumer("py-copier")
c.subscribe(["pin"])
q = Producer({"bootstrap.servers": servers, "transactional.id": "py-copier"})
q.init_transactions(20)
copied, deadline = 0, time.time() + 60
while copied < len(want) and time.time() < deadline:
    batch = [m for m in c.consume(7, 1) if not m.error()]
    if not batch:
        continue
    q.begin_transaction()
    for m in batch:
        q.produce("pout", m.value())
    q.send_offsets_to_transaction(c.position(c.assignment()), c.consumer_group_metadata(), 20)
    q.commit_transaction(20)
    copied += len(batch)
check(read("pout") == want, "the copy is what was written")
check(c.committed([TopicPartition("pin", 0)], 10)[0].offset > 0, "the offset is committed")
c.close()

r = Producer({"bootstrap.servers": servers, "transactional.id": "py-copier"})
q.begin_transaction()
q.produce("pout", "zombie")
q.flush(20)
r.init_transactions(20)
try:
    q.commit_transaction(20)
    raise AssertionError("a fenced producer could commit")
except KafkaException as e:
    check(e.args[0].fatal() or e.args[0].txn_requires_abort(), f"the first is fenced: {e.args[0].name()}")
r.begin_transaction()
r.produce("pout", "successor")
r.commit_transaction(20)
check(read("pout") == want + ["successor"], "the zombie's record is not read")
print("done")
