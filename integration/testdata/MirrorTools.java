import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Constructor;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.connect.mirror.Checkpoint;
import org.apache.kafka.connect.mirror.Heartbeat;
import org.apache.kafka.connect.mirror.MirrorCheckpointConfig;
import org.apache.kafka.connect.mirror.MirrorClient;
import org.apache.kafka.connect.mirror.OffsetSync;
import org.apache.kafka.connect.mirror.OffsetSyncStore;
import org.apache.kafka.connect.mirror.RemoteClusterUtils;
import org.apache.kafka.tools.consumer.ConsoleConsumer;
import org.apache.kafka.tools.consumer.ConsoleConsumerOptions;

/**
 * MirrorMaker 2's own classes, asked line by line: a verb, its arguments, and
 * the client's properties as key=value, with tabs between. The answer is some
 * lines and one with a dot; a line that begins with "! " is an exception.
 */
class MirrorTools {
    public static void main(String[] none) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            List<String> args = new ArrayList<>();
            Map<String, Object> properties = new HashMap<>();
            for (String word : line.split("\t")) {
                int at = word.indexOf('=');
                if (at > 0 && !args.isEmpty()) {
                    properties.put(word.substring(0, at), word.substring(at + 1));
                } else {
                    args.add(word);
                }
            }
            try {
                for (Object o : answer(args, properties)) {
                    out.println(o);
                }
            } catch (Throwable e) {
                for (Throwable cause = e; cause != null; cause = cause.getCause()) {
                    out.println("! " + cause);
                }
            }
            out.println(".");
        }
    }

    static Iterable<?> answer(List<String> args, Map<String, Object> properties) throws Exception {
        Duration patience = Duration.ofSeconds(20);
        switch (args.get(0)) {
            case "translateOffsets":
                return offsets(RemoteClusterUtils.translateOffsets(properties, args.get(2), args.get(1), patience));
            case "remoteConsumerOffsets":
                try (MirrorClient client = new MirrorClient(properties)) {
                    return offsets(client.remoteConsumerOffsets(args.get(1), args.get(2), patience));
                }
            case "checkpointTopics":
                return new TreeSet<>(RemoteClusterUtils.checkpointTopics(properties));
            case "heartbeatTopics":
                return new TreeSet<>(RemoteClusterUtils.heartbeatTopics(properties));
            case "upstreamClusters":
                return new TreeSet<>(RemoteClusterUtils.upstreamClusters(properties));
            case "replicationHops":
                return List.of(RemoteClusterUtils.replicationHops(properties, args.get(1)));
            case "remoteTopics":
                try (MirrorClient client = new MirrorClient(properties)) {
                    return new TreeSet<>(args.size() > 1 ? client.remoteTopics(args.get(1)) : client.remoteTopics());
                }
            case "offsetSyncStore":
                return store(args, properties);
            case "console":
                return console(args, properties);
            case "write":
                return written(args);
            case "read":
                return List.of(read(args));
            default:
                throw new IllegalArgumentException(args.get(0));
        }
    }

    static Set<String> offsets(Map<TopicPartition, OffsetAndMetadata> all) {
        Set<String> lines = new TreeSet<>();
        all.forEach((tp, o) -> lines.add(tp.topic() + " " + tp.partition() + " " + o.offset() + " " + o.metadata()));
        return lines;
    }

    /** offsetSyncStore forgetful|all topic partition offset...: what the checkpoint task would answer. */
    static List<String> store(List<String> args, Map<String, Object> properties) throws Exception {
        Map<String, String> config = new HashMap<>();
        properties.forEach((k, v) -> config.put(k, v.toString()));
        Constructor<OffsetSyncStore> make = OffsetSyncStore.class.getDeclaredConstructor(MirrorCheckpointConfig.class);
        make.setAccessible(true);
        List<String> lines = new ArrayList<>();
        try (OffsetSyncStore store = make.newInstance(new MirrorCheckpointConfig(config))) {
            store.start(args.get(1).equals("forgetful"));
            TopicPartition tp = new TopicPartition(args.get(2), Integer.parseInt(args.get(3)));
            for (String offset : args.subList(4, args.size())) {
                OptionalLong there = store.translateDownstream("group", tp, Long.parseLong(offset));
                lines.add(offset + " " + (there.isPresent() ? there.getAsLong() : "none"));
            }
        }
        return lines;
    }

    /** console formatter topic count: what ConsoleConsumer prints. */
    static List<String> console(List<String> args, Map<String, Object> properties) throws Exception {
        PrintStream before = System.out;
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        System.setOut(new PrintStream(printed, true, StandardCharsets.UTF_8));
        try {
            ConsoleConsumer.run(new ConsoleConsumerOptions(new String[] {
                "--bootstrap-server", properties.get("bootstrap.servers").toString(), "--topic", args.get(2), "--from-beginning",
                "--formatter", "org.apache.kafka.connect.mirror.formatters." + args.get(1), "--max-messages", args.get(3), "--timeout-ms", "20000"}));
        } finally {
            System.out.flush();
            System.setOut(before);
        }
        return printed.toString(StandardCharsets.UTF_8).lines().toList();
    }

    /** write kind fields...: key and value in hexadecimal, as the class itself writes them. */
    static List<String> written(List<String> args) throws Exception {
        Object record = switch (args.get(1)) {
            case "OffsetSync" -> new OffsetSync(partition(args, 2), number(args, 4), number(args, 5));
            case "Checkpoint" -> new Checkpoint(args.get(2), partition(args, 3), number(args, 5), number(args, 6), args.size() > 7 ? args.get(7) : "");
            default -> new Heartbeat(args.get(2), args.get(3), number(args, 4));
        };
        List<String> lines = new ArrayList<>();
        for (String part : List.of("recordKey", "recordValue")) {
            Method method = record.getClass().getDeclaredMethod(part);
            method.setAccessible(true);
            lines.add(HexFormat.of().formatHex((byte[]) method.invoke(record)));
        }
        return lines;
    }

    /** read kind key value: what the class makes of these bytes. */
    static Object read(List<String> args) {
        ConsumerRecord<byte[], byte[]> record = new ConsumerRecord<>("topic", 0, 0, HexFormat.of().parseHex(args.get(2)), HexFormat.of().parseHex(args.get(3)));
        return switch (args.get(1)) {
            case "OffsetSync" -> OffsetSync.deserializeRecord(record);
            case "Checkpoint" -> Checkpoint.deserializeRecord(record);
            default -> Heartbeat.deserializeRecord(record);
        };
    }

    static TopicPartition partition(List<String> args, int at) {
        return new TopicPartition(args.get(at), Integer.parseInt(args.get(at + 1)));
    }

    static long number(List<String> args, int at) {
        return Long.parseLong(args.get(at));
    }
}
