"""Reads a topic as the only member of a group, commits, leaves, and prints the numbers read of each partition.

usage: group.py kafka-python|confluent-kafka BOOTSTRAP TOPIC GROUP all|PARTITION:COUNT,...
"""
import json
import struct
import sys
import time


class Reader:
    """Takes records until each partition has given its share, or all it had."""

    def __init__(self, limits):
        self.limits = None if limits == "all" else {int(p): int(n) for p, n in (pair.split(":") for pair in limits.split(","))}
        self.numbers = {}
        self.next = {}  # offsets to commit

    def add(self, partition, offset, headers):
        taken = self.numbers.setdefault(partition, [])
        if self.limits is not None and len(taken) >= self.limits.get(partition, 0):
            return
        _, number = struct.unpack(">iq", dict(headers)["number"])
        taken.append(number)
        self.next[partition] = offset + 1

    def done(self, begun, ends):
        if self.limits is not None:
            return all(len(self.numbers.get(p, [])) >= n for p, n in self.limits.items())
        return all(self.next.get(p, begun.get(p, 0)) >= end for p, end in ends.items())


def kafka_python(bootstrap, topic, group, reader):
    from kafka import KafkaConsumer, TopicPartition
    from kafka.structs import OffsetAndMetadata

    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest")
    deadline = time.time() + 60
    partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
    ends = {tp.partition: end for tp, end in consumer.end_offsets(partitions).items()}
    begun = {tp.partition: consumer.committed(tp) or 0 for tp in partitions}
    while not reader.done(begun, ends):
        if time.time() > deadline:
            raise SystemExit("gave up: %s" % {p: len(n) for p, n in reader.numbers.items()})
        for records in consumer.poll(timeout_ms=500).values():
            for r in records:
                reader.add(r.partition, r.offset, r.headers)
    consumer.commit({TopicPartition(topic, p): OffsetAndMetadata(offset, "", -1) for p, offset in reader.next.items()})
    consumer.close()


def confluent_kafka(bootstrap, topic, group, reader):
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    deadline = time.time() + 60
    partitions = [TopicPartition(topic, p) for p in consumer.list_topics(topic, timeout=30).topics[topic].partitions]
    ends = {tp.partition: consumer.get_watermark_offsets(tp, timeout=30)[1] for tp in partitions}
    begun = {tp.partition: max(tp.offset, 0) for tp in consumer.committed(partitions, timeout=30)}
    consumer.subscribe([topic])
    while not reader.done(begun, ends):
        if time.time() > deadline:
            raise SystemExit("gave up: %s" % {p: len(n) for p, n in reader.numbers.items()})
        for r in consumer.consume(500, timeout=0.5):
            if r.error():
                raise SystemExit(str(r.error()))
            reader.add(r.partition(), r.offset(), r.headers())
    consumer.commit(offsets=[TopicPartition(topic, p, offset) for p, offset in reader.next.items()], asynchronous=False)
    consumer.close()


def main():
    library, bootstrap, topic, group, limits = sys.argv[1:]
    reader = Reader(limits)
    {"kafka-python": kafka_python, "confluent-kafka": confluent_kafka}[library](bootstrap, topic, group, reader)
    print(json.dumps({str(p): numbers for p, numbers in sorted(reader.numbers.items())}))


main()
