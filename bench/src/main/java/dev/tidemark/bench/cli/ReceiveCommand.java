package dev.tidemark.bench.cli;

import static java.nio.charset.StandardCharsets.UTF_8;

import dev.tidemark.bench.guest.MemoryDigest;
import dev.tidemark.bench.guest.SelfCheckingGuest;
import dev.tidemark.bench.guest.Throughput;
import dev.tidemark.bench.lab.DeviceState;
import dev.tidemark.engine.device.IncomingVfioDevice;
import dev.tidemark.engine.migrate.IncomingMigration;
import dev.tidemark.engine.migrate.IncomingResult;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.engine.stream.StreamException;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Socket;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** Takes over one guest, runs it until it has checked all of its memory, and says how it fared. */
@Command(
    name = "receive",
    description = {
      "Receives a guest, runs it until it has checked every page, and says the result.",
      "Connections that bring no guest are closed, and it goes on listening.",
      "Exit status: 0 every page is right, 1 failed, 2 wrong usage."
    },
    mixinStandardHelpOptions = true)
final class ReceiveCommand implements Callable<Integer> {
  /** How long the guest at the source may take to come once through its memory, and more. */
  private static final Duration STREAM_LIMIT = Duration.ofMinutes(15);

  private static final Duration CHECK_LIMIT = Duration.ofMinutes(10);

  /** All that a stranger learns of this host. */
  private static final String REFUSAL = "it cannot take this guest; its own messages say why";

  @Spec private CommandSpec spec;

  @Option(
      names = "--listen",
      paramLabel = "tcp:HOST:PORT|unix:PATH",
      converter = Endpoint.Converter.class,
      description =
          "where to listen; port 0 takes a free one. Any user of this host can reach a port, a Unix"
              + " socket only this user and root")
  private Endpoint endpoint;

  /** See {@link ReceiverProcess}. */
  @Option(names = "--parent", hidden = true)
  private Path parent;

  @Option(
      names = "--max-ram",
      paramLabel = "SIZE",
      converter = Units.Bytes.class,
      description = "most memory that a guest may have; default: what this host has available")
  private Long maxRam;

  @Option(names = "--json", description = "one JSON object a line")
  private boolean json;

  private long nonce;
  private long digestNanos;
  private long memoryDigest;

  @Override
  public Integer call() throws InterruptedException, IOException {
    if ((endpoint == null) == (parent == null)
        || parent != null && !ReceiverProcess.isOurs(parent)) {
      throw new ParameterException(
          spec.commandLine(), "where to listen? --listen=tcp:127.0.0.1:4444, for one");
    }
    return parent != null ? receiveFromParent() : listen();
  }

  private int listen() throws InterruptedException {
    try (Reception reception = new Reception(endpoint)) {
      say("listening", reception.address(), "listening on " + reception.address());
      if (System.out.checkError()) {
        throw new IllegalStateException("where it listens could not be written");
      }
      while (true) {
        Reception.Arrival arrival = reception.await();
        try (Socket socket = arrival.socket()) {
          TrackedGuest made;
          try {
            made = makeRoom(arrival.hello());
          } catch (RuntimeException e) {
            // Whoever asks for too much does not end the wait for who does not.
            Tidemark.complain("still listening; no room for a guest: " + e.getMessage());
            refuse(socket);
            reception.again();
            continue;
          }
          try (TrackedGuest tracked = made) {
            return receive(socket, arrival.hello(), tracked);
          }
        }
      }
    }
  }

  /**
   * Connects to the process that started this one, once that says by its first line, on the
   * standard input, that it listens; the end of that input says that it is gone.
   */
  private int receiveFromParent() throws InterruptedException, IOException {
    Socket connection;
    Wire.Hello hello;
    try {
      String line = new BufferedReader(new InputStreamReader(System.in, UTF_8)).readLine();
      if (line == null) {
        throw new IllegalStateException("the migration that started this receiver has ended");
      }
      hello = Wire.parse(line, Wire.Hello.class);
      connection = Socket.connect(parent);
    } finally {
      // The parent does the same, unless it was killed.
      Files.deleteIfExists(parent);
      Files.deleteIfExists(parent.getParent());
    }
    try (Socket socket = connection) {
      Socket.Peer peer = socket.peer();
      long expected = ProcessHandle.current().parent().map(ProcessHandle::pid).orElse(-1L);
      if (peer.pid() != expected || !peer.isThisUser()) {
        throw new IllegalStateException("the other side is not who started this receiver");
      }
      TrackedGuest made;
      try {
        made = makeRoom(hello);
      } catch (RuntimeException e) {
        refuse(socket);
        throw e;
      }
      try (TrackedGuest tracked = made) {
        return receive(socket, hello, tracked);
      }
    }
  }

  private TrackedGuest makeRoom(Wire.Hello hello) {
    if (maxRam != null && hello.ramBytes() > maxRam) {
      throw new IllegalStateException(
          Units.size(hello.ramBytes()) + " of RAM are more than --max-ram=" + Units.size(maxRam));
    }
    HostMemory.require(hello.ramBytes());
    return TrackedGuest.arriving(hello.guest(), hello.ramBytes());
  }

  private static void refuse(Socket socket) {
    try {
      Wire.refuse(socket, REFUSAL);
    } catch (LinuxException e) {
      // It is gone, and needs no answer.
    }
  }

  private int receive(Socket socket, Wire.Hello hello, TrackedGuest tracked)
      throws InterruptedException {
    nonce = hello.nonce();
    say("receiving", true, "receiving a guest with " + Units.size(hello.ramBytes()));
    Wire.send(socket, new Wire.Answer(null));
    if (parent != null && !socket.awaitReadable((int) STREAM_LIMIT.toMillis())) {
      throw new IllegalStateException("no guest came for " + STREAM_LIMIT.toSeconds() + " s");
    }
    SelfCheckingGuest guest = tracked.guest();
    IncomingResult arrival =
        new IncomingMigration(
                Wire.MACHINE,
                List.of(guest.ram()),
                socket,
                tracked.migratingDevice().stream()
                    .map(device -> new IncomingVfioDevice(Wire.DEVICE, device))
                    .toList(),
                handlers(guest),
                tracked.control())
            .run();
    if (!arrival.told()) {
      Tidemark.complain("the guest runs here; the source could not be told: " + arrival.problem());
    }
    say("running", true, "the guest runs here; it checks its memory");
    boolean verified = guest.awaitFullPass(CHECK_LIMIT);
    Throughput throughput = guest.throughput(System.nanoTime());
    String error =
        guest.error().orElse(verified ? null : "the guest did not come through its memory");
    if (arrival.told()) {
      report(
          socket,
          new Wire.Report(
              verified,
              error,
              guest.firstRunNanos(),
              digestNanos,
              guest.pagesChecked(),
              throughput,
              tracked.migratingDevice().map(DeviceState::digest).orElse(0L),
              memoryDigest));
    }
    if (json) {
      Map<String, Object> result = new LinkedHashMap<>();
      result.put("verified", verified);
      result.put("status", verified ? "completed" : "failed");
      result.put("reason", error);
      System.out.println(Json.of(result));
    } else if (verified) {
      System.out.println("every page is right");
    }
    if (!verified) {
      Tidemark.complain(error);
    }
    return verified ? Tidemark.DONE : Tidemark.FAILED;
  }

  /** Tells the source how its guest fares; the guest is here whether or not the source hears it. */
  private static void report(Socket socket, Wire.Report report) {
    try {
      Wire.send(socket, report);
    } catch (LinuxException e) {
      Tidemark.complain("the guest runs here; the source could not be told: " + e.getMessage());
    }
  }

  private List<SectionHandler> handlers(SelfCheckingGuest guest) {
    return List.of(
        new SectionHandler(
            Wire.STATE,
            0,
            1,
            in -> {
              int length = in.be32();
              if (length < 0 || length > 1 << 20) {
                throw new StreamException("guest state of " + length + " bytes");
              }
              byte[] state = new byte[length];
              in.bytes(MemorySegment.ofArray(state));
              guest.loadState(state);
            }),
        new SectionHandler(
            Wire.DIGEST,
            0,
            1,
            in -> {
              long expected = in.be64();
              long start = System.nanoTime();
              long found = digest(guest);
              digestNanos = System.nanoTime() - start;
              if (found != expected) {
                throw new StreamException(
                    String.format(
                        Locale.ROOT,
                        "memory differs from the source's: digest %016x instead of %016x",
                        found,
                        expected));
              }
              start = System.nanoTime();
              memoryDigest = digest(guest, nonce);
              digestNanos += System.nanoTime() - start;
            }));
  }

  /** The digest that is sent with the guest. */
  static long digest(SelfCheckingGuest guest) {
    try {
      return MemoryDigest.of(guest.ram().memory());
    } catch (InterruptedException e) {
      throw interrupted(e);
    }
  }

  /** The digest that only both ends can know: the report has it. */
  static long digest(SelfCheckingGuest guest, long nonce) {
    try {
      return MemoryDigest.of(guest.ram().memory(), nonce);
    } catch (InterruptedException e) {
      throw interrupted(e);
    }
  }

  private static IllegalStateException interrupted(InterruptedException e) {
    Thread.currentThread().interrupt();
    return new IllegalStateException("interrupted", e);
  }

  private void say(String key, Object value, String text) {
    System.out.println(json ? Json.of(Map.of(key, value)) : text);
    System.out.flush();
  }
}
