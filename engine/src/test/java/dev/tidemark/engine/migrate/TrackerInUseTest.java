package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtySource;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.ValueLayout;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A tracker that a migration uses, and others want. */
@Timeout(300)
class TrackerInUseTest {
  private static final int PAGES = 20_000;
  private static final String MACHINE = "test";

  private final Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
  private final DirtyTracker tracker =
      new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
  private final RamBlockLog log = tracker.logs().getFirst();
  private final Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
  private final Guest guest = new Guest(true);
  private final CountDownLatch sending = new CountDownLatch(1);

  /** What happens in each sync, on the migration's thread. */
  private volatile Runnable atSync = () -> {};

  /** Reports nothing. */
  private final class Hook implements DirtySource {
    @Override
    public String name() {
      return "hook";
    }

    @Override
    public void start() {}

    @Override
    public void sync() {
      atSync.run();
    }

    @Override
    public void markAll() {}

    @Override
    public void stop() {}

    @Override
    public void close() {}
  }

  TrackerInUseTest() {
    tracker.coverByMarks(log, 0, PAGES);
    tracker.add(new Hook());
    for (long page = 0; page < PAGES; page++) {
      memory.segment().set(ValueLayout.JAVA_LONG, page * Pages.SIZE, page + 1);
    }
  }

  @AfterEach
  void close() {
    tracker.close();
    listener.close();
    memory.close();
  }

  private static final class Guest implements GuestControl {
    private volatile boolean running;

    Guest(boolean running) {
      this.running = running;
    }

    @Override
    public void stop() {
      running = false;
    }

    @Override
    public void resume() {
      running = true;
    }
  }

  /** Another end with memory of its own. */
  private final class Destination implements AutoCloseable {
    private final Mapping there = Mapping.anonymous(PAGES * Pages.SIZE);
    private final Guest arrived = new Guest(false);
    private final Socket out = Socket.connect(listener.localAddress());
    private final Socket in = listener.accept();
    private final Thread thread =
        Thread.ofPlatform()
            .start(
                () -> {
                  try {
                    new IncomingMigration(
                            MACHINE,
                            List.of(new RamBlock("ram", there.segment())),
                            in,
                            List.of(),
                            arrived)
                        .run();
                  } catch (RuntimeException e) {
                    in.shutdown();
                  }
                });

    @Override
    public void close() {
      out.shutdown();
      try {
        thread.join();
      } catch (InterruptedException e) {
        throw new AssertionError(e);
      }
      out.close();
      in.close();
      there.close();
    }
  }

  private CompletableFuture<MigrationResult> migrate(
      Destination to, Duration downtime, long bandwidth, Consumer<Progress> listener) {
    var options =
        new MigrationOptions(
            downtime,
            bandwidth,
            20,
            Duration.ofMinutes(2),
            AtLimit.FAIL,
            Duration.ofSeconds(30),
            true,
            MACHINE);
    var migration = new OutgoingMigration(tracker, to.out, guest, List.of(), options, listener);
    var result = new CompletableFuture<MigrationResult>();
    Thread.ofPlatform()
        .start(
            () -> {
              try {
                result.complete(migration.run());
              } catch (Throwable e) {
                result.completeExceptionally(e);
              }
            });
    return result;
  }

  private void assertClosedWhileItSends(Runnable close) throws Exception {
    // After a round of one run rounds of many: more than a cursor reads ahead. There are always
    // such rounds to come, however late the progress is told.
    AtomicInteger syncs = new AtomicInteger();
    atSync =
        () -> {
          if (syncs.incrementAndGet() >= 2) {
            for (int page = 0; page < PAGES; page += 2) {
              log.mark(page, 1);
            }
          }
        };
    try (Destination to = new Destination()) {
      var result =
          migrate(
              to,
              Duration.ofNanos(1),
              20_000_000,
              progress -> {
                if (progress.phase() == Progress.Phase.SENDING && progress.round() >= 2) {
                  sending.countDown();
                }
              });
      assertTrue(sending.await(120, TimeUnit.SECONDS));
      close.run();
      MigrationResult ended = result.get(120, TimeUnit.SECONDS);
      assertEquals(Outcome.FAILED, ended.outcome());
      assertTrue(ended.reason().contains("is closed"), ended.reason());
      assertTrue(guest.running);
      assertFalse(to.arrived.running);
    }
  }

  @Test
  void closingTheTrackerFailsTheMigrationAndTheGuestGoesOn() throws Exception {
    assertClosedWhileItSends(tracker::close);
    assertFalse(tracker.isTracking());
  }

  @Test
  void closingALogFailsTheMigrationAndTheGuestGoesOn() throws Exception {
    assertClosedWhileItSends(log::close);
  }

  @Test
  void aSecondMigrationIsRefusedAndTheFirstGoesOn() throws Exception {
    try (Destination first = new Destination();
        Destination second = new Destination()) {
      CountDownLatch refused = new CountDownLatch(1);
      atSync =
          () -> {
            sending.countDown();
            try {
              refused.await();
            } catch (InterruptedException e) {
              throw new AssertionError(e);
            }
          };
      var result = migrate(first, Duration.ofSeconds(60), 0, p -> {});
      assertTrue(sending.await(120, TimeUnit.SECONDS));
      for (int i = 0; i < 3; i++) {
        MigrationResult other =
            migrate(second, Duration.ofSeconds(60), 0, p -> {}).get(120, TimeUnit.SECONDS);
        assertEquals(Outcome.FAILED, other.outcome());
        assertTrue(other.reason().startsWith("the tracker is in use by "), other.reason());
        assertTrue(guest.running);
        assertTrue(tracker.isTracking());
      }
      refused.countDown();
      MigrationResult ended = result.get(120, TimeUnit.SECONDS);
      assertEquals(Outcome.COMPLETED, ended.outcome(), ended.reason());
      assertTrue(first.arrived.running);
      assertFalse(second.arrived.running);
      assertEquals(-1, memory.segment().mismatch(first.there.segment()));
      assertFalse(tracker.isTracking());
    }
  }

  @Test
  void trackingThatTheVmmHasOnStaysOnAndKeepsItsPages() throws Exception {
    tracker.start();
    tracker.harvest();
    tracker.commit();
    log.mark(5, 2);
    try (Destination to = new Destination()) {
      MigrationResult ended =
          migrate(to, Duration.ofSeconds(60), 0, p -> {}).get(120, TimeUnit.SECONDS);
      assertEquals(Outcome.FAILED, ended.outcome());
      assertTrue(ended.reason().startsWith("tracking is on"), ended.reason());
      assertFalse(to.arrived.running);
    }
    assertTrue(guest.running);
    assertTrue(tracker.isTracking());
    tracker.sync();
    assertEquals(2, tracker.harvest());
  }
}
