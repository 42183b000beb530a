package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * The connection is cut at each byte of the handover, in either direction: who runs the guest then,
 * and what both ends say. The guest writes nothing of its own, and a few pages while it is stopped,
 * so that the same bytes follow its stop each time: pages, state, PING and, as the last one, go.
 */
@Timeout(300)
class CutConnectionTest {
  private static final long PAGES = 64;
  private static final int EFFORT = Integer.getInteger("tidemark.effort", 1);
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final long NEVER = Long.MAX_VALUE;
  private static final int TAIL = 48;
  private static final MigrationOptions OPTIONS =
      new MigrationOptions(
          Duration.ofMillis(300),
          0,
          30,
          Duration.ofMinutes(1),
          AtLimit.FAIL,
          Duration.ofSeconds(60),
          true,
          "test");

  private WritingGuest source;
  private DirtyTracker tracker;
  private Socket listener;

  @BeforeEach
  void setUp() {
    String missing =
        Userfaultfd.probe()
            .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
            .or(Pagemap::missing)
            .orElse(null);
    assumeTrue(missing == null, missing);
    source = new WritingGuest("ram", PAGES, 0, SEED);
    source.fill();
    tracker = new DirtyTracker(List.of(source.block()));
    tracker.add(new PagemapScanSource(tracker.logs()));
    listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
  }

  @AfterEach
  void tearDown() {
    if (source != null) {
      tracker.close();
      source.close();
      listener.close();
    }
  }

  /** Passes bytes on, and cuts both connections instead of one byte too many. */
  private static final class Direction {
    private final Socket from;
    private final Socket to;
    private final WritingGuest counted;
    private final int stopsBefore;
    private final long most;
    private final Runnable cut;
    private volatile long passed;

    /**
     * @param counted whose stop starts the counting
     * @param most how many bytes pass after that
     */
    Direction(Socket from, Socket to, WritingGuest counted, long most, Runnable cut) {
      this.from = from;
      this.to = to;
      this.counted = counted;
      this.stopsBefore = counted.stops();
      this.most = most;
      this.cut = cut;
    }

    void run() {
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment buffer = arena.allocate(4096);
        var vectors = new IoVectors(arena, 1);
        for (long got; (got = from.read(buffer, buffer.byteSize())) > 0; ) {
          boolean counts = counted.stops() > stopsBefore;
          long pass = counts ? Math.min(got, most - passed) : got;
          if (pass > 0) {
            vectors.clear();
            vectors.add(buffer, 0, pass);
            to.writeFully(vectors);
          }
          if (counts) {
            passed += pass;
          }
          if (pass < got) {
            break;
          }
        }
      } catch (LinuxException e) {
        // The other direction was cut first.
      } finally {
        cut.run();
      }
    }
  }

  /** What came of a migration. */
  private record End(
      MigrationResult result, String failureThere, boolean runsThere, long forth, long back) {}

  private End migrate(long forth, long back) throws Exception {
    List<Socket> sockets = new ArrayList<>();
    source.resume();
    try (WritingGuest destination = new WritingGuest("ram", PAGES, 0, 0)) {
      Socket sourceEnd = add(sockets, Socket.connect(listener.localAddress()));
      Socket nearSource = add(sockets, listener.accept());
      Socket nearDestination = add(sockets, Socket.connect(listener.localAddress()));
      Socket destinationEnd = add(sockets, listener.accept());
      Runnable cut =
          () -> {
            nearSource.shutdown();
            nearDestination.shutdown();
          };
      var forward = new Direction(nearSource, nearDestination, source, forth, cut);
      var backward = new Direction(nearDestination, nearSource, source, back, cut);
      var incoming =
          new IncomingMigration(
              "test",
              List.of(destination.block()),
              destinationEnd,
              List.of(new SectionHandler("clock", 0, 1, in -> assertEquals(7, in.be64()))),
              destination);
      var there =
          new FutureTask<>(
              () -> {
                try {
                  incoming.run();
                  return null;
                } catch (RuntimeException e) {
                  return String.valueOf(e.getMessage());
                } finally {
                  destinationEnd.shutdown();
                }
              });
      List<Thread> threads =
          List.of(
              Thread.ofPlatform().daemon().start(forward::run),
              Thread.ofPlatform().daemon().start(backward::run),
              Thread.ofPlatform().daemon().start(there));
      MigrationResult result =
          new OutgoingMigration(
                  tracker,
                  sourceEnd,
                  stoppingGuest(),
                  List.of(new StateSection("clock", 0, 1, out -> out.be64(7))),
                  OPTIONS,
                  _ -> {})
              .run();
      sourceEnd.shutdown();
      String failure = there.get(60, TimeUnit.SECONDS);
      for (Thread thread : threads) {
        thread.join();
      }
      boolean runsThere = destination.isRunning();
      if (runsThere) {
        assertEquals(-1, source.block().memory().mismatch(destination.block().memory()));
      }
      return new End(result, failure, runsThere, forward.passed, backward.passed);
    } finally {
      sockets.forEach(Socket::close);
    }
  }

  private static Socket add(List<Socket> sockets, Socket socket) {
    sockets.add(socket);
    return socket;
  }

  /** Writes three pages before it stops, one of them to zero. */
  private GuestControl stoppingGuest() {
    return new GuestControl() {
      @Override
      public void stop() {
        for (long page = 0; page < 3; page++) {
          source
              .block()
              .memory()
              .set(ValueLayout.JAVA_LONG, page * 20 * Pages.SIZE, page == 1 ? 0 : 77);
        }
        source.stop();
      }

      @Override
      public void resume() {
        source.resume();
      }
    };
  }

  /** Never two guests; none only if both ends say so; and what is said is true. */
  private End check(long forth, long back) throws Exception {
    End end = migrate(forth, back);
    String at = "forth %d, back %d, seed %d: %s".formatted(forth, back, SEED, end);
    boolean runsHere = source.isRunning();
    assertFalse(runsHere && end.runsThere, "two guests: " + at);
    assertFalse(tracker.isTracking(), at);
    assertEquals(end.result.outcome() == Outcome.FAILED, runsHere, at);
    if (end.result.outcome() == Outcome.COMPLETED) {
      assertTrue(end.runsThere, at);
    } else {
      assertFalse(end.result.reason().isEmpty(), at);
      assertFalse(end.result.reason().contains("\n"), at);
    }
    if (!end.runsThere) {
      assertFalse(end.failureThere == null || end.failureThere.isEmpty(), at);
    }
    return end;
  }

  @Test
  void cutAtAnyByteOfTheHandoverTheGuestRunsAtOneEndOrTheOutcomeIsUnknown() throws Exception {
    check(NEVER, NEVER);
    End whole = check(NEVER, NEVER);
    assertEquals(Outcome.COMPLETED, whole.result.outcome(), whole.result.reason());
    assertTrue(whole.forth > 2 * Pages.SIZE + TAIL, "pages, state, go: " + whole.forth);
    assertTrue(whole.back >= 8, "PONG and SHUT: " + whole.back);
    var random = new SplittableRandom(SEED);
    for (int i = 0; i < 5 * EFFORT; i++) {
      long most = random.nextLong(whole.forth - TAIL);
      assertEquals(Outcome.FAILED, check(most, NEVER).result.outcome());
    }
    // With some effort each byte, else some of them.
    int step = Math.max(1, 5 - EFFORT);
    for (long left = 2 + random.nextInt(step); left <= TAIL; left += step) {
      long most = whole.forth - left;
      assertEquals(Outcome.FAILED, check(most, NEVER).result.outcome(), () -> "before go");
    }
    End go = check(whole.forth - 1, NEVER);
    assertEquals(Outcome.UNKNOWN, go.result.outcome(), "go was sent, and did not arrive");
    assertFalse(go.runsThere);
    assertEquals(Outcome.COMPLETED, check(whole.forth, NEVER).result.outcome());
    for (long most = random.nextInt(step); most < whole.back; most += step) {
      End end = check(NEVER, most);
      assertEquals(
          end.runsThere ? Outcome.UNKNOWN : Outcome.FAILED, end.result.outcome(), "" + most);
    }
    End shut = check(NEVER, whole.back - 1);
    assertEquals(Outcome.UNKNOWN, shut.result.outcome(), "SHUT did not arrive whole");
    assertTrue(shut.runsThere);
  }
}
