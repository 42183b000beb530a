package dev.tidemark.engine.source;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Whatever a source throws, and whenever: every other step is taken, and no page is lost. */
class TrackerUnwindTest {
  private static final long PAGES = 1000;

  private final Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
  private final DirtyTracker tracker =
      new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
  private final RamBlockLog log = tracker.logs().getFirst();
  private final List<String> calls = new ArrayList<>();

  @AfterEach
  void close() {
    tracker.close();
    memory.close();
  }

  /** Covers everything, marks ten pages, and throws what it is told to. */
  private final class Source implements DirtySource {
    private final String name;
    private final Map<String, Throwable> failures = new HashMap<>();
    private Runnable inSync = () -> {};

    Source(String name) {
      this.name = name;
    }

    Source throwing(String call, Throwable failure) {
      failures.put(call, failure);
      return this;
    }

    private void call(String what) {
      calls.add(name + "." + what);
      switch (failures.get(what)) {
        case null -> {}
        case Error e -> throw e;
        case Throwable e -> throw (RuntimeException) e;
      }
    }

    @Override
    public String name() {
      return name;
    }

    @Override
    public void cover(Coverage coverage) {
      coverage.add(log, 0, PAGES);
    }

    @Override
    public void start() {
      call("start");
    }

    @Override
    public void sync() {
      call("sync");
      inSync.run();
    }

    @Override
    public void markAll() {
      call("markAll");
      log.mark(100, 10);
    }

    @Override
    public void markAlwaysDirty() {
      call("markAlwaysDirty");
    }

    @Override
    public void stop() {
      call("stop");
    }

    @Override
    public void close() {
      call("close");
    }
  }

  private Source add(String name) {
    Source source = new Source(name);
    tracker.add(source);
    return source;
  }

  private void startClean() {
    tracker.start();
    tracker.harvest();
    tracker.commit();
    calls.clear();
  }

  private static long residentBytes() throws IOException {
    return Files.readAllLines(Path.of("/proc/self/status")).stream()
        .filter(line -> line.startsWith("VmRSS:"))
        .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")) << 10)
        .findFirst()
        .orElseThrow();
  }

  private static RamBlock unbacked(String name, long address, long pages) {
    return new RamBlock(name, Libc.memory(address, pages * Pages.SIZE));
  }

  @Test
  void ifTheLogOfALaterBlockCannotBeMadeTheEarlierOnesAreFreed() throws IOException {
    // 16 MiB a plane, touched; and one that no address space holds.
    List<RamBlock> blocks =
        List.of(unbacked("a", 1L << 40, 1L << 27), unbacked("b", 1L << 41, 1L << 50));
    long before = residentBytes();
    for (int i = 0; i < 16; i++) {
      assertThrows(LinuxException.class, () -> new DirtyTracker(blocks));
    }
    long leaked = residentBytes() - before;
    assertTrue(leaked < 256 << 20, "resident after 16 failures, in bytes: " + leaked);
  }

  @Test
  void closingClosesEverySourceAndEveryLog() {
    var first = new IllegalStateException("device gone");
    var second = new AssertionError("cannot close");
    add("a").throwing("stop", first).throwing("close", second);
    add("b");
    startClean();
    assertSame(first, assertThrows(IllegalStateException.class, tracker::close));
    assertArrayEquals(new Throwable[] {second}, first.getSuppressed());
    assertEquals(List.of("a.stop", "b.stop", "a.close", "b.close"), calls);
    assertThrows(ClosedException.class, log::dirtyPages);
    tracker.close();
    assertEquals(4, calls.size(), "once");
  }

  @Test
  void stoppingStopsEverySourceWhateverOneThrows() {
    var failure = new StackOverflowError();
    add("a").throwing("stop", failure);
    add("b").throwing("stop", new IllegalStateException("b"));
    add("c");
    startClean();
    assertSame(failure, assertThrows(StackOverflowError.class, tracker::stop));
    assertEquals(List.of("a.stop", "b.stop", "c.stop"), calls);
    assertEquals(1, failure.getSuppressed().length);
    assertFalse(tracker.isTracking());
  }

  @Test
  void aStartThatFailsWithAnErrorStopsWhatWasStarted() {
    add("a");
    add("b").throwing("start", new AssertionError("b"));
    assertThrows(AssertionError.class, tracker::start);
    assertEquals(List.of("a.start", "b.start", "a.stop"), calls);
    assertFalse(tracker.isTracking());
  }

  @Test
  void whatCannotJoinWhileTrackingIsOnIsStoppedAgain() {
    add("a");
    startClean();
    Source late = new Source("late").throwing("markAll", new IllegalStateException("late"));
    assertThrows(IllegalStateException.class, () -> tracker.add(late));
    assertEquals(List.of("late.start", "late.markAll", "late.stop"), calls);
    assertEquals(List.of("a"), tracker.sourceNames());
  }

  @Test
  void anErrorInASyncLosesNoPageAndIsThrownAfterwards() {
    var error = new AssertionError("a");
    add("a").throwing("sync", error);
    add("b");
    startClean();
    log.mark(7, 1);
    assertSame(error, assertThrows(AssertionError.class, tracker::sync));
    assertEquals(List.of("a.sync", "a.markAll", "b.sync"), calls);
    assertEquals(1, tracker.failures());
    assertEquals(11, tracker.harvest());
  }

  @Test
  void ifThePagesOfAFailedSourceCannotBeMarkedEveryPageIs() {
    add("a")
        .throwing("sync", new IllegalStateException("sync"))
        .throwing("markAll", new StackOverflowError());
    startClean();
    tracker.sync();
    assertEquals(PAGES, tracker.harvest());
  }

  @Test
  void aFailureThatIsThrownTwiceLosesNoPageEither() {
    // As the JVM's own OutOfMemoryError may be: one object for all.
    var error = new OutOfMemoryError("the JVM's own");
    add("a").throwing("sync", error).throwing("markAll", error);
    startClean();
    assertSame(error, assertThrows(OutOfMemoryError.class, tracker::sync));
    assertEquals(PAGES, tracker.harvest());
  }

  @Test
  void theLastSyncMarksWhatIsAlwaysDirtyOfEverySource() {
    add("a").throwing("markAlwaysDirty", new IllegalStateException("a"));
    add("b");
    startClean();
    tracker.lastSync();
    assertEquals(
        List.of("a.sync", "a.markAlwaysDirty", "a.markAll", "b.sync", "b.markAlwaysDirty"), calls);
    assertEquals(1, tracker.failures());
    assertEquals(10, tracker.harvest());
  }

  @Test
  void afterCloseEveryCallSaysSo() {
    add("a");
    tracker.close();
    List<Runnable> uses =
        List.of(
            tracker::start,
            tracker::stop,
            tracker::sync,
            tracker::lastSync,
            tracker::harvest,
            tracker::commit,
            tracker::abort,
            tracker::claim,
            () -> tracker.add(new Source("late")),
            () -> tracker.coverByMarks(log, 0, 1));
    for (Runnable use : uses) {
      assertThrows(ClosedException.class, use::run);
    }
  }

  /** Runs it in another thread and gives what it threw. */
  private static Throwable elsewhere(Runnable use) throws InterruptedException {
    AtomicReference<Throwable> thrown = new AtomicReference<>();
    Thread.ofPlatform()
        .start(
            () -> {
              try {
                use.run();
              } catch (Throwable e) {
                thrown.set(e);
              }
            })
        .join();
    return thrown.get();
  }

  @Test
  void aThreadThatComesInDuringASyncIsRefusedAndCloseWaits() throws Exception {
    Source slow = add("slow");
    startClean();
    List<Throwable> refused = new ArrayList<>();
    CountDownLatch closing = new CountDownLatch(1);
    Thread closer =
        Thread.ofPlatform()
            .unstarted(
                () -> {
                  closing.countDown();
                  tracker.close();
                });
    slow.inSync =
        () -> {
          try {
            refused.add(elsewhere(tracker::sync));
            refused.add(elsewhere(tracker::stop));
            closer.start();
            closing.await();
            while (closer.getState() == Thread.State.RUNNABLE) {
              Thread.onSpinWait();
            }
            calls.add("synced");
          } catch (InterruptedException e) {
            throw new AssertionError(e);
          }
        };
    tracker.sync();
    closer.join();
    assertEquals(List.of("slow.sync", "synced", "slow.stop", "slow.close"), calls);
    for (Throwable e : refused) {
      assertEquals(IllegalStateException.class, e.getClass());
    }
    assertThrows(ClosedException.class, tracker::harvest);
  }

  @Test
  void aClaimedTrackerRefusesOtherThreadsUntilItIsReleased() throws Exception {
    add("a");
    tracker.claim();
    startClean();
    for (Runnable use :
        List.<Runnable>of(
            tracker::claim,
            tracker::release,
            tracker::stop,
            tracker::sync,
            tracker::harvest,
            tracker::abort)) {
      assertEquals(IllegalStateException.class, elsewhere(use).getClass());
    }
    assertEquals(List.of(), calls);
    assertTrue(tracker.isTracking());
    tracker.sync();
    tracker.release();
    assertEquals(List.of("a.sync", "a.stop"), calls);
    assertThrows(IllegalStateException.class, tracker::release);
    tracker.start();
    assertThrows(IllegalStateException.class, tracker::claim);
    assertTrue(tracker.isTracking());
  }
}
