import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;

/** Kafka Streams counts words exactly once, over a stop in the middle. Ends with "done", or throws. */
public class WordCount {
    static String servers;

    static KafkaStreams streams(String dir) {
        Properties p = new Properties();
        p.put("application.id", "words");
        p.put("bootstrap.servers", servers);
        p.put("processing.guarantee", "exactly_once_v2");
        p.put("commit.interval.ms", 100);
        p.put("state.dir", dir);
        p.put("replication.factor", 1);
        p.put("default.key.serde", Serdes.StringSerde.class);
        p.put("default.value.serde", Serdes.StringSerde.class);
        p.put("consumer.session.timeout.ms", 6000);
        StreamsBuilder b = new StreamsBuilder();
        b.<String, String>stream("lines").flatMapValues(l -> Arrays.asList(l.split(" "))).groupBy((k, w) -> w)
            .count().toStream().to("counts", Produced.with(Serdes.String(), Serdes.Long()));
        return new KafkaStreams(b.build(), p);
    }

    static void feed(int from, int to) throws Exception {
        Map<String, Object> c = new HashMap<>();
        c.put("bootstrap.servers", servers);
        try (KafkaProducer<String, String> p = new KafkaProducer<>(c, new StringSerializer(), new StringSerializer())) {
            for (int i = from; i < to; i++) p.send(new ProducerRecord<>("lines", "" + i, "all w" + i % 7 + " all w" + i % 3));
            p.flush();
        }
    }

    static Map<String, Long> counts() {
        Map<String, Object> c = new HashMap<>();
        c.put("bootstrap.servers", servers);
        c.put("isolation.level", "read_committed");
        Map<String, Long> latest = new TreeMap<>();
        try (KafkaConsumer<String, Long> k = new KafkaConsumer<>(c, new StringDeserializer(), new LongDeserializer())) {
            List<TopicPartition> tps = List.of(new TopicPartition("counts", 0), new TopicPartition("counts", 1));
            k.assign(tps);
            k.seekToBeginning(tps);
            Map<TopicPartition, Long> ends = k.endOffsets(tps);
            while (tps.stream().anyMatch(tp -> k.position(tp) < ends.get(tp)))
                for (ConsumerRecord<String, Long> r : k.poll(Duration.ofMillis(200))) {
                    Long before = latest.put(r.key(), r.value());
                    if (before != null && r.value() <= before) throw new AssertionError(r.key() + " falls from " + before + " to " + r.value());
                }
        }
        return latest;
    }

    static void await(Map<String, Long> want) throws Exception {
        long end = System.currentTimeMillis() + 90000;
        Map<String, Long> got = counts();
        while (!got.equals(want)) {
            if (System.currentTimeMillis() > end) throw new AssertionError("counts " + got + ", want " + want);
            Thread.sleep(200);
            got = counts();
        }
        System.out.println("ok: " + got);
    }

    static Map<String, Long> expected(int lines) {
        Map<String, Long> m = new TreeMap<>();
        for (int i = 0; i < lines; i++) {
            m.merge("all", 2L, Long::sum);
            m.merge("w" + i % 7, 1L, Long::sum);
            m.merge("w" + i % 3, 1L, Long::sum);
        }
        return m;
    }

    public static void main(String[] args) throws Exception {
        servers = args[0];
        String dir = java.nio.file.Files.createTempDirectory("words").toString();
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", servers))) {
            admin.createTopics(List.of(new NewTopic("lines", 2, (short) 1), new NewTopic("counts", 2, (short) 1))).all().get();
        }
        KafkaStreams s = streams(dir);
        s.start();
        feed(0, 1000);
        await(expected(1000));
        feed(1000, 2000);
        s.close(Duration.ofSeconds(10)); // while it counts
        s = streams(dir + "-anew"); // another disk: the state comes from the changelog
        s.start();
        feed(2000, 3000);
        await(expected(3000));
        s.close(Duration.ofSeconds(10));
        System.out.println("done");
    }
}
