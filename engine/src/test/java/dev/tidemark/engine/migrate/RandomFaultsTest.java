package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * Migrations that are cut, cancelled or interrupted anywhere: each is followed by one that arrives
 * with every page, and none leaves anything behind in the process. {@code -Dtidemark.effort=10} for
 * 300 faults and 600 failures.
 */
@Timeout(900)
class RandomFaultsTest {
  private static final int EFFORT = Integer.getInteger("tidemark.effort", 1);
  private static final long PAGES = 1024;
  private static final MigrationOptions OPTIONS =
      MigrationOptions.DEFAULT
          .withDowntimeLimit(Duration.ofSeconds(1))
          .withStopLimit(Duration.ofMinutes(1))
          .withLimits(30, Duration.ofMinutes(1), AtLimit.STOP_AND_COPY);

  private final long seed = Long.getLong("tidemark.seed", System.nanoTime());
  private final SplittableRandom random = new SplittableRandom(seed);
  private final Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));

  /** How a migration is troubled. */
  private enum Trouble {
    END,
    RESET,
    HALF_CLOSE,
    SILENCE,
    CANCEL_SOURCE,
    CANCEL_DESTINATION,
    INTERRUPT_SOURCE,
    INTERRUPT_DESTINATION
  }

  private static void pause(long micros) {
    try {
      Thread.sleep(Duration.ofNanos(micros * 1000));
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Migrates, in trouble or not; and the guest runs at no more than one end. */
  private MigrationResult migrate(
      DirtyTracker tracker, WritingGuest source, Trouble trouble, String what) throws Exception {
    boolean forward = random.nextBoolean();
    long all = forward ? 3 * PAGES * (Pages.SIZE + 8) / 2 : 40;
    long at = random.nextLong(all);
    long micros = random.nextLong(300_000);
    Relay.Fault fault =
        trouble == null || trouble.ordinal() > Trouble.SILENCE.ordinal()
            ? Relay.Fault.NONE
            : Relay.Fault.valueOf(trouble.name());
    boolean silent = trouble == Trouble.SILENCE;
    Duration limit = silent ? Duration.ofMillis(500) : Duration.ofSeconds(60);
    try (WritingGuest destination = new WritingGuest("ram", PAGES, 0, 0);
        Relay relay = new Relay(listener.localAddress(), forward, at, fault);
        Socket out = Socket.connect(relay.address());
        Socket in = listener.accept()) {
      IncomingMigration incoming =
          new IncomingMigration(
              "tidemark",
              List.of(destination.block()),
              in,
              List.of(),
              List.of(),
              destination,
              limit);
      OutgoingMigration outgoing =
          new OutgoingMigration(
              tracker, out, source, List.of(), OPTIONS.withAnswerLimit(limit), p -> {});
      CompletableFuture<IncomingResult> arrival = new CompletableFuture<>();
      Thread there =
          Thread.ofPlatform()
              .daemon()
              .start(
                  () -> {
                    try {
                      arrival.complete(incoming.run());
                    } catch (Throwable e) {
                      in.shutdown();
                      arrival.completeExceptionally(e);
                    }
                  });
      // Of its own, for an interrupt may come when the migration has ended.
      CompletableFuture<MigrationResult> ended = new CompletableFuture<>();
      Thread here =
          Thread.ofPlatform()
              .daemon()
              .start(
                  () -> {
                    try {
                      ended.complete(outgoing.run());
                    } catch (Throwable e) {
                      ended.completeExceptionally(e);
                    }
                  });
      Thread troublemaker =
          Thread.ofPlatform()
              .daemon()
              .start(
                  () -> {
                    pause(micros);
                    if (trouble == Trouble.CANCEL_SOURCE) {
                      outgoing.cancel();
                    } else if (trouble == Trouble.CANCEL_DESTINATION) {
                      incoming.cancel();
                    } else if (trouble == Trouble.INTERRUPT_SOURCE) {
                      here.interrupt();
                    } else if (trouble == Trouble.INTERRUPT_DESTINATION) {
                      there.interrupt();
                    }
                  });
      MigrationResult result = ended.get(120, TimeUnit.SECONDS);
      if (result.outcome() != Outcome.COMPLETED) {
        out.shutdown();
      }
      boolean arrived = Ends.failure(arrival) == null;
      troublemaker.join();
      String said = what + ": " + result + ", seed " + seed;
      assertEquals(arrived, destination.isRunning(), said);
      assertFalse(source.isRunning() && destination.isRunning(), "two guests: " + said);
      assertEquals(
          result.outcome() == Outcome.FAILED || result.outcome() == Outcome.CANCELLED,
          source.isRunning(),
          said);
      if (result.outcome() == Outcome.COMPLETED) {
        assertTrue(arrived, said);
      }
      if (arrived) {
        assertEquals(-1, source.block().memory().mismatch(destination.block().memory()), said);
      }
      if (trouble == null) {
        assertEquals(Outcome.COMPLETED, result.outcome(), said);
      }
      assertFalse(tracker.isTracking(), said);
      return result;
    }
  }

  @Test
  void afterAnyFaultTheNextMigrationArrivesWithEveryPage() throws Exception {
    System.out.println("RandomFaultsTest: -Dtidemark.seed=" + seed);
    int[] outcomes = new int[Outcome.values().length];
    try (listener;
        WritingGuest source = new WritingGuest("ram", PAGES, 5, seed);
        DirtyTracker tracker = new DirtyTracker(List.of(source.block()))) {
      source.fill();
      tracker.add(new PagemapScanSource(tracker.logs()));
      Trouble[] troubles = Trouble.values();
      for (int i = 0; i < 30 * EFFORT; i++) {
        source.resume();
        Trouble trouble = troubles[random.nextInt(troubles.length)];
        outcomes[migrate(tracker, source, trouble, i + " " + trouble).outcome().ordinal()]++;
        if (!source.isRunning()) {
          source.resume();
        }
        migrate(tracker, source, null, i + " after " + trouble);
      }
    }
    for (Outcome outcome : Outcome.values()) {
      System.out.println("RandomFaultsTest: " + outcome + " " + outcomes[outcome.ordinal()]);
    }
  }

  private static long entries(String directory) throws Exception {
    try (Stream<Path> files = Files.list(Path.of(directory))) {
      return files.count();
    }
  }

  private static long status(String field) throws Exception {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith(field + ":")) {
        return Long.parseLong(line.replaceAll("\\D", ""));
      }
    }
    throw new AssertionError(field);
  }

  /** The process's own descriptors, mappings, threads, and KiB of heap and of memory. */
  private record Held(long descriptors, long mappings, long threads, long heap, long memory) {
    static Held now() throws Exception {
      System.gc();
      return new Held(
          entries("/proc/self/fd"),
          Files.readAllLines(Path.of("/proc/self/maps")).size(),
          Thread.getAllStackTraces().keySet().stream()
              .filter(thread -> thread.getName().startsWith("tidemark-"))
              .filter(thread -> !thread.getName().equals("tidemark-scan"))
              .count(),
          ManagementFactory.getMemoryMXBean().getHeapMemoryUsage().getUsed() >> 10,
          status("VmRSS"));
    }
  }

  @Test
  void failedMigrationsLeaveNothingBehind() throws Exception {
    try (listener;
        Ends ends = new Ends(64)) {
      failures(ends, 20);
      Held before = settled(null);
      failures(ends, 60 * EFFORT);
      Held after = settled(before);
      String said = before + " before, " + after + " after";
      System.out.println("RandomFaultsTest: " + said);
      assertTrue(after.descriptors <= before.descriptors, said);
      assertTrue(after.threads <= before.threads, said);
      // Stacks and code of the JVM come and go.
      assertTrue(after.mappings <= before.mappings + 40, said);
      assertTrue(after.heap <= before.heap + (8 << 10), said);
      assertTrue(after.memory <= before.memory + (64 << 10), said);
    }
  }

  /** Threads of the last migrations end on their own. */
  private static Held settled(Held before) throws Exception {
    Held now = Held.now();
    for (int i = 0;
        i < 200 && (before == null ? now.threads > 0 : now.threads > before.threads);
        i++) {
      Thread.sleep(50);
      now = Held.now();
    }
    return now;
  }

  /** Fails in turn at the source, at the destination, and in the middle. */
  private static void failures(Ends ends, int count) throws Exception {
    for (int i = 0; i < count; i++) {
      int which = i % 3;
      ends.sections =
          which == 0
              ? List.of(
                  new StateSection(
                      "x",
                      0,
                      1,
                      data -> {
                        throw new IllegalStateException("as asked for");
                      }))
              : List.of(new StateSection("unknown", 0, 1, data -> data.be8(1)));
      try (Relay relay =
          new Relay(
              ends.address(),
              true,
              which == 2 ? 50_000 : 0,
              which == 2 ? Relay.Fault.RESET : Relay.Fault.NONE)) {
        ends.connect(relay.address());
        CompletableFuture<IncomingResult> arrival = ends.receive();
        MigrationResult result = ends.outgoing(Ends.OPTIONS).run();
        ends.out.shutdown();
        assertEquals(Outcome.FAILED, result.outcome(), result.reason());
        assertNotNull(Ends.failure(arrival));
      }
    }
  }
}
