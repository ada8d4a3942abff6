"""Reads a topic to its end and prints the count and SHA-256 of each partition's records.

usage: checksum.py kafka-python|confluent-kafka BOOTSTRAP TOPIC COUNT
"""
import hashlib
import json
import struct
import sys
import time


class Sums:
    def __init__(self):
        self.partitions = {}
        self.records = 0

    def add(self, partition, key, value, timestamp, headers):
        sums = self.partitions.setdefault(partition, [0, hashlib.sha256()])
        sums[0] += 1
        self.records += 1
        self.put(sums[1], key)
        self.put(sums[1], value)
        sums[1].update(struct.pack(">qi", timestamp, len(headers)))
        for name, content in headers:
            self.put(sums[1], name.encode())
            self.put(sums[1], content)

    @staticmethod
    def put(digest, content):
        digest.update(struct.pack(">i", -1 if content is None else len(content)))
        digest.update(content or b"")


def kafka_python(bootstrap, topic, count, sums):
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))])
    idle = time.time() + 60
    while sums.records < count and time.time() < idle:
        for records in consumer.poll(timeout_ms=1000).values():
            idle = time.time() + 60
            for r in records:
                sums.add(r.partition, r.key, r.value, r.timestamp, r.headers or [])
    consumer.close()


def confluent_kafka(bootstrap, topic, count, sums):
    from confluent_kafka import Consumer, OFFSET_BEGINNING, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "checksum", "enable.auto.commit": False, "check.crcs": True})
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in sorted(partitions)])
    idle = time.time() + 60
    while sums.records < count and time.time() < idle:
        for r in consumer.consume(1000, timeout=1):
            if r.error():
                raise SystemExit(str(r.error()))
            idle = time.time() + 60
            sums.add(r.partition(), r.key(), r.value(), r.timestamp()[1], r.headers() or [])
    consumer.close()


def main():
    library, bootstrap, topic, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    sums = Sums()
    {"kafka-python": kafka_python, "confluent-kafka": confluent_kafka}[library](bootstrap, topic, count, sums)
    print(json.dumps({str(p): {"count": n, "sha256": digest.hexdigest()} for p, (n, digest) in sorted(sums.partitions.items())}))


main()
