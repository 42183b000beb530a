package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.source.DirtySource;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.engine.stream.StreamException;
import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The loop, end to end in one process: who runs afterwards, and with which memory. */
@Timeout(300)
class MigrationTest {
  private static final long PAGES = 4096;
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final String MACHINE = "test";
  private static final MigrationOptions OPTIONS =
      new MigrationOptions(
          Duration.ofMillis(300),
          0,
          30,
          Duration.ofMinutes(1),
          AtLimit.FAIL,
          Duration.ofSeconds(60),
          Duration.ofMinutes(1),
          true,
          MACHINE);

  static {
    System.out.println("MigrationTest: -Dtidemark.seed=" + SEED);
  }

  private final ExecutorService destinationThread = Executors.newSingleThreadExecutor();
  private WritingGuest source;
  private WritingGuest destination;
  private DirtyTracker tracker;
  private Socket listener;
  private Socket sourceEnd;
  private Socket destinationEnd;

  /** What a destination did. */
  private record Arrival(boolean completed, String failure) {}

  @BeforeEach
  void setUp() {
    String missing =
        Userfaultfd.probe()
            .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
            .or(Pagemap::missing)
            .orElse(null);
    assumeTrue(missing == null, missing);
    source = new WritingGuest("ram", PAGES, 20, SEED);
    source.fill();
    source.resume();
    tracker = new DirtyTracker(List.of(source.block()));
    tracker.add(new PagemapScanSource(tracker.logs()));
    listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
    connect();
  }

  private void connect() {
    if (destination != null) {
      destination.close();
      sourceEnd.close();
      destinationEnd.close();
    }
    destination = new WritingGuest("ram", PAGES, 0, 0);
    sourceEnd = Socket.connect(listener.localAddress());
    destinationEnd = listener.accept();
  }

  @AfterEach
  void tearDown() {
    destinationThread.shutdownNow();
    if (source != null) {
      tracker.close();
      source.close();
      destination.close();
      listener.close();
      sourceEnd.close();
      destinationEnd.close();
    }
  }

  private Future<Arrival> receive(List<SectionHandler> handlers) {
    var incoming =
        new IncomingMigration(
            MACHINE, List.of(destination.block()), destinationEnd, handlers, destination);
    return destinationThread.submit(
        () -> {
          try {
            incoming.run();
            return new Arrival(true, null);
          } catch (RuntimeException e) {
            destinationEnd.shutdown();
            return new Arrival(false, e.getMessage());
          }
        });
  }

  private OutgoingMigration migration(MigrationOptions options, List<StateSection> sections) {
    return new OutgoingMigration(tracker, sourceEnd, source, sections, options, p -> {});
  }

  private static Arrival join(Future<Arrival> arrival) throws Exception {
    return arrival.get(120, TimeUnit.SECONDS);
  }

  private void assertSameMemory() {
    assertEquals(-1, source.block().memory().mismatch(destination.block().memory()));
  }

  private void assertRunsAtTheSource() throws InterruptedException {
    assertTrue(source.isRunning());
    long before = source.writes();
    for (int i = 0; i < 1000 && source.writes() == before; i++) {
      Thread.sleep(5);
    }
    assertTrue(source.writes() > before, "the source's guest must go on writing");
    assertFalse(tracker.isTracking());
    assertFalse(destination.isRunning(), "the guest must not be at both ends");
  }

  /** Whatever went wrong before: a migration to a good destination works at once. */
  private void assertNextMigrationWorks() throws Exception {
    connect();
    Future<Arrival> arrival = receive(List.of());
    MigrationResult result = migration(OPTIONS, List.of()).run();
    assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
    assertTrue(join(arrival).completed);
    assertTrue(
        result.pagesSent() + result.zeroPages() >= PAGES, "it must start with every page dirty");
    assertSameMemory();
  }

  @Test
  void aWritingGuestArrivesWithItsMemoryAndState() throws Exception {
    AtomicReference<Long> state = new AtomicReference<>();
    Future<Arrival> arrival =
        receive(List.of(new SectionHandler("clock", 7, 3, in -> state.set(in.be64()))));
    List<Progress> progress = new ArrayList<>();
    MigrationResult result =
        new OutgoingMigration(
                tracker,
                sourceEnd,
                source,
                List.of(new StateSection("clock", 7, 3, out -> out.be64(source.writes()))),
                OPTIONS,
                progress::add)
            .run();
    assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
    assertTrue(join(arrival).completed);
    assertSameMemory();
    assertEquals(source.writes(), state.get());
    assertFalse(source.isRunning());
    assertTrue(destination.isRunning());
    assertFalse(tracker.isTracking());
    assertTrue(result.rounds() >= 2, "the first round alone cannot have been enough");
    assertTrue(result.expectedDowntimeNanos() <= OPTIONS.downtimeLimit().toNanos());
    assertEquals(PAGES * 4096, result.ramBytes());
    assertTrue(result.zeroPages() > 0);
    assertTrue(result.firstPageNanos() > 0, result.toString());
    assertEquals(List.of("pagemap-scan"), result.sources());
    assertEquals(Progress.Phase.HARVESTED, progress.getFirst().phase());
    assertEquals(PAGES, progress.getFirst().dirtyPages(), "the first round holds every page");
    assertEquals(Progress.Phase.STOPPED, progress.getLast().phase());
  }

  @Test
  void aGuestThatWritesTooFastStaysAndTheReasonSaysWhy() throws Exception {
    Future<Arrival> arrival = receive(List.of());
    MigrationResult result =
        migration(
                OPTIONS
                    .withDowntimeLimit(Duration.ofNanos(1))
                    .withLimits(3, Duration.ofMinutes(1), AtLimit.FAIL),
                List.of())
            .run();
    sourceEnd.shutdown();
    assertEquals(Outcome.FAILED, result.outcome());
    assertTrue(result.reason().startsWith("after 3 rounds there are still "), result.reason());
    assertEquals(3, result.rounds());
    assertEquals(0, source.stops());
    assertFalse(join(arrival).completed);
    assertRunsAtTheSource();
    assertNextMigrationWorks();
  }

  @Test
  void theFinalStopIsForcedOnlyWhenAskedFor() throws Exception {
    Future<Arrival> arrival = receive(List.of());
    MigrationResult result =
        migration(
                OPTIONS
                    .withDowntimeLimit(Duration.ofNanos(1))
                    .withLimits(2, Duration.ofMinutes(1), AtLimit.STOP_AND_COPY),
                List.of())
            .run();
    assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
    assertTrue(join(arrival).completed);
    assertEquals(-1, result.expectedDowntimeNanos());
    assertSameMemory();
  }

  @Test
  void theTimeLimitEndsAMigrationUnderABandwidthLimit() throws Exception {
    Future<Arrival> arrival = receive(List.of());
    MigrationResult result =
        migration(
                OPTIONS
                    .withMaxBandwidth(4_000_000)
                    .withDowntimeLimit(Duration.ofMillis(1))
                    .withLimits(1000, Duration.ofMillis(1500), AtLimit.FAIL),
                List.of())
            .run();
    sourceEnd.shutdown();
    assertEquals(Outcome.FAILED, result.outcome());
    assertTrue(result.reason().startsWith("after 1500 ms there are still "), result.reason());
    assertFalse(join(arrival).completed);
    assertRunsAtTheSource();
  }

  @Test
  void cancelLeavesTheSourceRunningAndTrackingOff() throws Exception {
    Future<Arrival> arrival = receive(List.of());
    CountDownLatch started = new CountDownLatch(1);
    var migration =
        new OutgoingMigration(
            tracker,
            sourceEnd,
            source,
            List.of(),
            OPTIONS.withMaxBandwidth(1_000_000),
            p -> started.countDown());
    Thread canceller =
        Thread.ofPlatform()
            .start(
                () -> {
                  try {
                    started.await();
                    assertTrue(migration.cancel());
                  } catch (InterruptedException e) {
                    throw new AssertionError(e);
                  }
                });
    MigrationResult result = migration.run();
    canceller.join();
    assertEquals(Outcome.CANCELLED, result.outcome());
    assertEquals("cancelled", result.reason());
    assertFalse(migration.cancel(), "it is over");
    assertFalse(join(arrival).completed);
    assertRunsAtTheSource();
    assertNextMigrationWorks();
  }

  @Test
  void aCancelFromTheStopCallbackIsNotTooLate() throws Exception {
    Future<Arrival> arrival = receive(List.of());
    var holder = new AtomicReference<OutgoingMigration>();
    var migration =
        migration(OPTIONS, List.of(new StateSection("x", 0, 1, out -> holder.get().cancel())));
    holder.set(migration);
    assertEquals(Outcome.CANCELLED, migration.run().outcome());
    assertFalse(join(arrival).completed);
    assertRunsAtTheSource();
  }

  /** The destination dies once so many bytes have reached it: some rounds in, for the last ones. */
  @ParameterizedTest
  @ValueSource(longs = {0, 1, 40, 100, 1000, 100_000, 4_000_000, 8_000_000, 10_000_000, 20_000_000})
  void aDestinationThatDiesAtAnyByteLeavesTheSourceRunning(long bytes) throws Exception {
    try (Relay relay = new Relay(listener.localAddress(), true, bytes, Relay.Fault.RESET)) {
      sourceEnd.close();
      destinationEnd.close();
      sourceEnd = Socket.connect(relay.address());
      destinationEnd = listener.accept();
      Future<Arrival> arrival = receive(List.of());
      // With a downtime limit that it never meets it goes on until the connection breaks.
      MigrationResult result =
          migration(
                  OPTIONS
                      .withDowntimeLimit(Duration.ofNanos(1))
                      .withLimits(10_000, Duration.ofMinutes(1), AtLimit.FAIL),
                  List.of())
              .run();
      assertEquals(Outcome.FAILED, result.outcome());
      assertFalse(result.reason().isEmpty());
      assertFalse(result.reason().contains("\n"));
      assertTrue(bytes < source.block().bytes() || result.rounds() > 1, result.toString());
      assertFalse(join(arrival).completed);
    }
    assertRunsAtTheSource();
    assertNextMigrationWorks();
  }

  @Test
  void aDestinationThatRefusesTheStateLeavesTheSourceRunning() throws Exception {
    Future<Arrival> arrival =
        receive(
            List.of(
                new SectionHandler(
                    "clock",
                    0,
                    1,
                    in -> {
                      in.be64();
                      throw new StreamException("the clock runs backwards here");
                    })));
    MigrationResult result =
        migration(OPTIONS, List.of(new StateSection("clock", 0, 1, out -> out.be64(1)))).run();
    assertEquals(Outcome.FAILED, result.outcome());
    assertTrue(result.reason().contains("the destination gave up"), result.reason());
    assertEquals(1, source.stops(), "it was stopped, and resumed");
    assertTrue(join(arrival).failure.contains("backwards"));
    assertRunsAtTheSource();
    assertNextMigrationWorks();
  }

  /** Where the connection breaks around go, as a script of the destination's side. */
  private enum Break {
    BEFORE_LAST_PONG(Outcome.FAILED),
    AFTER_LAST_PONG(Outcome.UNKNOWN),
    AFTER_GO(Outcome.UNKNOWN),
    SHUT_WITH_FAILURE(Outcome.NOWHERE);

    private final Outcome expected;

    Break(Outcome expected) {
      this.expected = expected;
    }
  }

  @ParameterizedTest
  @EnumSource(Break.class)
  void aBreakAroundGoNeverLeavesTwoGuestsAndNoneOnlyWithAnError(Break at) throws Exception {
    var resumed = new CountDownLatch(1);
    GuestControl there =
        new GuestControl() {
          @Override
          public void stop() {
            throw new AssertionError("nobody stops the destination");
          }

          @Override
          public void resume() {
            if (at == Break.AFTER_GO) {
              destinationEnd.shutdown();
            }
            if (at == Break.SHUT_WITH_FAILURE) {
              throw new IllegalStateException("no vCPU");
            }
            resumed.countDown();
          }
        };
    Cutter relay = at == Break.AFTER_LAST_PONG ? new Cutter() : null;
    List<SectionHandler> handlers =
        List.of(
            new SectionHandler(
                "x",
                0,
                1,
                in -> {
                  in.be8();
                  if (relay != null) {
                    relay.stateLoaded = true;
                  }
                  if (at == Break.BEFORE_LAST_PONG) {
                    destinationEnd.shutdown();
                  }
                }));
    var incoming =
        new IncomingMigration(
            MACHINE, List.of(destination.block()), destinationEnd, handlers, there);
    Future<Arrival> arrival =
        destinationThread.submit(
            () -> {
              try {
                incoming.run();
                return new Arrival(true, null);
              } catch (RuntimeException e) {
                return new Arrival(false, e.getMessage());
              } finally {
                destinationEnd.shutdown();
              }
            });
    OutgoingMigration migration =
        migration(OPTIONS, List.of(new StateSection("x", 0, 1, out -> out.be8(1))));
    MigrationResult result = migration.run();
    Arrival there1 = join(arrival);
    // The source may see the end just before it says go.
    boolean seen = at == Break.AFTER_LAST_PONG && result.outcome() == Outcome.FAILED;
    Outcome expected = seen ? Outcome.FAILED : at.expected;
    assertEquals(expected, result.outcome(), result.reason());
    boolean runsThere = resumed.getCount() == 0;
    boolean runsHere = source.isRunning();
    assertFalse(runsHere && runsThere, "two guests");
    assertEquals(expected == Outcome.FAILED, runsHere);
    if (!runsHere && !runsThere) {
      assertFalse(result.reason().isEmpty(), "none, and nobody said so");
      assertFalse(there1.failure.isEmpty());
    }
    if (at == Break.AFTER_GO) {
      assertTrue(runsThere);
    }
  }

  /**
   * Puts itself between the two ends, and cuts both once it has passed on the answer that follows
   * the state: after the last PONG and before go.
   */
  private final class Cutter {
    private volatile boolean stateLoaded;

    Cutter() {
      Socket source = destinationEnd;
      Socket towardsDestination = Socket.connect(listener.localAddress());
      destinationEnd = listener.accept();
      Thread.ofPlatform().daemon().start(() -> copy(source, towardsDestination, 65536));
      Thread.ofPlatform().daemon().start(() -> copy(towardsDestination, source, 8));
    }

    private void copy(Socket from, Socket to, int most) {
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment buffer = arena.allocate(most);
        var vectors = new IoVectors(arena, 1);
        while (true) {
          long got = from.read(buffer, most);
          boolean last = stateLoaded && most == 8;
          if (got == 0) {
            break;
          }
          vectors.clear();
          vectors.add(buffer, 0, got);
          to.writeFully(vectors);
          if (last) {
            break;
          }
        }
      } catch (LinuxException e) {
        // The other direction was cut first.
      } finally {
        from.shutdown();
        to.shutdown();
      }
    }
  }

  @Test
  void aSourceThatCannotStartEndsTheMigrationAndNothingStaysOn() throws Exception {
    tracker.add(
        new DirtySource() {
          @Override
          public String name() {
            return "broken";
          }

          @Override
          public void start() {
            throw new IllegalStateException("broken cannot start");
          }

          @Override
          public void sync() {}

          @Override
          public void markAll() {}

          @Override
          public void stop() {}

          @Override
          public void close() {}
        });
    Future<Arrival> arrival = receive(List.of());
    MigrationResult result = migration(OPTIONS, List.of()).run();
    sourceEnd.shutdown();
    assertEquals(Outcome.FAILED, result.outcome());
    assertEquals("broken cannot start", result.reason());
    assertFalse(join(arrival).completed);
    assertRunsAtTheSource();
  }

  @Test
  void optionsThatMakeNoSenseAreRefused() {
    assertThrows(IllegalArgumentException.class, () -> OPTIONS.withDowntimeLimit(Duration.ZERO));
    assertThrows(IllegalArgumentException.class, () -> OPTIONS.withMaxBandwidth(-1));
    assertThrows(
        IllegalArgumentException.class,
        () -> OPTIONS.withLimits(0, Duration.ofSeconds(1), AtLimit.FAIL));
  }

  @Test
  void blocksOfOtherLengthAreRefusedBeforeAnyPage() throws Exception {
    try (WritingGuest small = new WritingGuest("ram", PAGES - 1, 0, 0)) {
      RamBlock block = small.block();
      var incoming =
          new IncomingMigration(MACHINE, List.of(block), destinationEnd, List.of(), small);
      Future<?> arrival =
          destinationThread.submit(
              () -> {
                assertThrows(StreamException.class, incoming::run);
                destinationEnd.close();
              });
      assertEquals(Outcome.FAILED, migration(OPTIONS, List.of()).run().outcome());
      arrival.get(120, TimeUnit.SECONDS);
      byte[] zeros = new byte[(int) block.bytes()];
      assertEquals(-1, block.memory().mismatch(MemorySegment.ofArray(zeros)));
      assertRunsAtTheSource();
    }
  }
}
