package dev.tidemark.bench.cli;

import dev.tidemark.bench.guest.MemoryDigest;
import dev.tidemark.bench.guest.SelfCheckingGuest;
import dev.tidemark.bench.lab.DeviceState;
import dev.tidemark.engine.device.IncomingVfioDevice;
import dev.tidemark.engine.migrate.IncomingMigration;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.engine.stream.StreamException;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Takes over one guest, runs it until it has checked all of its memory, and says how it fared. */
@Command(
    name = "receive",
    description = "Receives a guest, runs it until it has checked every page, and says the result.",
    mixinStandardHelpOptions = true)
final class ReceiveCommand implements Callable<Integer> {
  private static final Duration HELLO_LIMIT = Duration.ofSeconds(30);
  private static final Duration CHECK_LIMIT = Duration.ofMinutes(10);

  @Option(
      names = "--listen",
      required = true,
      paramLabel = "tcp:HOST:PORT",
      converter = Units.Tcp.class,
      description = "where to listen; port 0 takes a free one")
  private InetSocketAddress address;

  @Option(names = "--json", description = "one JSON object a line")
  private boolean json;

  private long digestNanos;

  @Override
  public Integer call() throws InterruptedException {
    try (Socket listener = Socket.listen(address)) {
      String here = Units.text(listener.localAddress());
      say("listening", here, "listening on " + here);
      try (Socket socket = listener.accept()) {
        return receive(socket);
      }
    }
  }

  private int receive(Socket socket) throws InterruptedException {
    Wire.Hello hello = Wire.receive(socket, Wire.Hello.class, HELLO_LIMIT);
    TrackedGuest made;
    try {
      if (hello.guest() == null) {
        throw new IllegalStateException("the other side is no tidemark: it names no guest");
      }
      HostMemory.require(hello.ramBytes());
      made = TrackedGuest.arriving(hello.guest(), hello.ramBytes());
    } catch (RuntimeException e) {
      Wire.send(socket, new Wire.Answer(e.getMessage()));
      throw e;
    }
    try (TrackedGuest tracked = made) {
      say("receiving", "true", "receiving a guest with " + Units.size(hello.ramBytes()));
      Wire.send(socket, new Wire.Answer(null));
      SelfCheckingGuest guest = tracked.guest();
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
      say("running", "true", "the guest runs here; it checks its memory");
      boolean verified = guest.awaitFullPass(CHECK_LIMIT);
      String error =
          guest.error().orElse(verified ? null : "the guest did not come through its memory");
      Wire.send(
          socket,
          new Wire.Report(
              verified,
              error,
              guest.firstRunNanos(),
              digestNanos,
              guest.pagesChecked(),
              tracked.migratingDevice().map(DeviceState::digest).orElse(0L)));
      say("verified", String.valueOf(verified), verified ? "every page is right" : error);
      if (!verified) {
        System.err.println("tidemark: " + error);
      }
      return verified ? Tidemark.DONE : Tidemark.FAILED;
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
                    "memory differs from the source's: digest %016x instead of %016x"
                        .formatted(found, expected));
              }
            }));
  }

  static long digest(SelfCheckingGuest guest) {
    try {
      return MemoryDigest.of(guest.ram().memory());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted", e);
    }
  }

  private void say(String key, String value, String text) {
    if (json) {
      Map<String, String> line = new LinkedHashMap<>();
      line.put(key, value);
      System.out.println(Json.of(line));
    } else {
      System.out.println(text);
    }
    System.out.flush();
  }
}
