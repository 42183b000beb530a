package dev.tidemark.engine.migrate;

import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.stream.StreamException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Memory that goes, or never was there: an outcome with a page, not the end of the process. */
@Timeout(300)
class UnreadableMemoryTest {
  private static final long PAGES = 2048;
  private static final long BYTES = PAGES * Pages.SIZE;
  private static final int EFFORT = Integer.getInteger("tidemark.effort", 1);
  private static final int MFD_HUGETLB = 4;
  private static final int PROT_NONE = 0;
  private static final int PROT_READ = 1;
  private static final int PROT_RW = 3;
  private static final int MAP_SHARED = 1;
  private static final int MAP_NORESERVE = 0x4000;

  private int file = -1;
  private MemorySegment mapped;
  private Mapping other;

  @AfterEach
  void free() {
    if (mapped != null) {
      Libc.munmap(mapped.address(), mapped.byteSize());
    }
    if (other != null) {
      other.close();
    }
    if (file >= 0) {
      Libc.close(file);
    }
  }

  private MemorySegment memfd(int flags) {
    file = (int) Libc.check(Libc.memfdCreate("unreadable", flags), "memfd_create");
    truncate(BYTES);
    mapped =
        Libc.memory(
            Libc.check(Libc.mmap(0, BYTES, PROT_RW, MAP_SHARED | MAP_NORESERVE, file, 0), "mmap"),
            BYTES);
    return mapped;
  }

  private void truncate(long bytes) {
    Libc.check(Libc.ftruncate(file, bytes), "ftruncate");
  }

  private MemorySegment plain() {
    other = Mapping.anonymous(BYTES);
    return other.segment();
  }

  private static MemorySegment filled(MemorySegment memory) {
    for (long page = 0; page < PAGES; page += 2) {
      memory.set(JAVA_LONG, page * Pages.SIZE + (page * 8 & 4088), page + 1);
    }
    return memory;
  }

  private record Ends(
      MigrationResult source, Throwable destination, boolean sourceRuns, boolean destinationRuns) {
    void assertFailed(String sourceText, String destinationText) {
      assertEquals(Outcome.FAILED, source.outcome(), source.reason());
      assertTrue(source.reason().contains(sourceText), source.reason());
      assertTrue(destination instanceof StreamException, () -> "" + destination);
      assertTrue(destination.getMessage().contains(destinationText), destination.getMessage());
      assertTrue(sourceRuns, "the guest goes on at the source");
      assertFalse(destinationRuns);
    }
  }

  private static GuestControl control(AtomicBoolean runs) {
    return new GuestControl() {
      @Override
      public void stop() {
        runs.set(false);
      }

      @Override
      public void resume() {
        runs.set(true);
      }
    };
  }

  private static Ends migrate(
      MemorySegment from, MemorySegment to, long bandwidth, Consumer<Progress> listener)
      throws Exception {
    AtomicBoolean sourceRuns = new AtomicBoolean(true);
    AtomicBoolean destinationRuns = new AtomicBoolean();
    try (Socket listening = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
        Socket near = Socket.connect(listening.localAddress());
        DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", from)))) {
      FutureTask<Throwable> destination =
          new FutureTask<>(
              () -> {
                try (Socket far = listening.accept()) {
                  new IncomingMigration(
                          "test",
                          List.of(new RamBlock("ram", to)),
                          far,
                          List.of(),
                          control(destinationRuns))
                      .run();
                  return null;
                } catch (Throwable e) {
                  return e;
                }
              });
      Thread.ofPlatform().daemon().start(destination);
      tracker.coverByMarks(tracker.logs().getFirst(), 0, PAGES);
      MigrationOptions options =
          new MigrationOptions(
              Duration.ofMillis(300),
              bandwidth,
              5,
              Duration.ofMinutes(1),
              AtLimit.FAIL,
              Duration.ofSeconds(60),
              true,
              "test");
      MigrationResult result =
          new OutgoingMigration(tracker, near, control(sourceRuns), List.of(), options, listener)
              .run();
      near.shutdown();
      assertFalse(tracker.isTracking());
      return new Ends(result, destination.get(), sourceRuns.get(), destinationRuns.get());
    }
  }

  private static Ends migrate(MemorySegment from, MemorySegment to) throws Exception {
    return migrate(from, to, 0, progress -> {});
  }

  @Test
  void aPageThatMayNotBeReadIsNamed() throws Exception {
    MemorySegment from = filled(memfd(0));
    Libc.check(Libc.mprotect(from.address() + 700 * Pages.SIZE, Pages.SIZE, PROT_NONE), "mprotect");
    migrate(from, plain())
        .assertFailed("block ram, page 700 of 2048 cannot be read", "stream ended");
  }

  @Test
  void aPageThatIsNotMappedIsNamed() throws Exception {
    MemorySegment from = filled(memfd(0));
    Libc.check(Libc.munmap(from.address() + 700 * Pages.SIZE, Pages.SIZE), "munmap");
    migrate(from, plain())
        .assertFailed("block ram, page 700 of 2048 cannot be read", "stream ended");
  }

  @Test
  void aFileThatIsTooShortIsNamedByItsFirstMissingPage() throws Exception {
    MemorySegment from = filled(memfd(0));
    truncate(1000 * Pages.SIZE);
    migrate(from, plain())
        .assertFailed("block ram, page 1000 of 2048 cannot be read", "stream ended");
  }

  @Test
  void aFileThatIsTruncatedOnTheWayIsAFailure() throws Exception {
    MemorySegment from = filled(memfd(0));
    boolean[] done = {false};
    migrate(
            from,
            plain(),
            8 << 20,
            progress -> {
              if (progress.bytesSent() > 1 << 20 && !done[0]) {
                done[0] = true;
                truncate(1000 * Pages.SIZE);
              }
            })
        .assertFailed("of 2048 cannot be read", "stream ended");
    assertTrue(done[0]);
  }

  @Test
  void anEmptyPoolOfHugePagesIsAFailure() throws Exception {
    // Reserved by nobody: there is no page unless this machine has a pool, which then is used.
    MemorySegment from = memfd(MFD_HUGETLB);
    Ends ends = migrate(from, plain());
    if (ends.source.outcome() != Outcome.COMPLETED) {
      ends.assertFailed("block ram, page 0 of 2048 cannot be read", "stream ended");
    }
  }

  @Test
  void aDestinationThatMayNotBeWrittenRefusesBeforeThePages() throws Exception {
    MemorySegment to = memfd(0);
    Libc.check(Libc.mprotect(to.address() + 5 * Pages.SIZE, Pages.SIZE, PROT_READ), "mprotect");
    migrate(filled(plain()), to)
        .assertFailed("", "block ram, page 5 of 2048 cannot be written: its mapping");
  }

  @Test
  void aDestinationWhoseFileIsTooShortIsAFailure() throws Exception {
    MemorySegment to = memfd(0);
    truncate(1000 * Pages.SIZE);
    // Page 1000 has content, page 1001 is zero.
    migrate(filled(plain()), to).assertFailed("", "block ram, page 1000 of 2048 cannot be written");
  }

  @Test
  void aDestinationWhoseFileIsTooShortForZerosIsAFailure() throws Exception {
    MemorySegment to = memfd(0);
    truncate(1000 * Pages.SIZE);
    migrate(plain(), to).assertFailed("", "block ram, page 1000 of 2048 cannot be");
  }

  /** Where a check before the read would be a race: the file goes at any moment of it. */
  @Test
  void aFileThatShrinksAndGrowsAllTheTimeNeverEndsTheProcess() throws Exception {
    MemorySegment from = memfd(0);
    AtomicBoolean stop = new AtomicBoolean();
    FutureTask<Void> shrinker =
        new FutureTask<>(
            () -> {
              while (!stop.get()) {
                truncate(Pages.SIZE);
                truncate(BYTES);
              }
              return null;
            });
    other = Mapping.anonymous(BYTES);
    Thread.ofPlatform().daemon().start(shrinker);
    int failed = 0;
    try {
      for (int i = 0; i < 20 * EFFORT; i++) {
        Ends ends = migrate(from, other.segment());
        if (ends.source.outcome() == Outcome.COMPLETED) {
          assertTrue(ends.destinationRuns && !ends.sourceRuns);
        } else {
          ends.assertFailed("of 2048 cannot be read", "");
          failed++;
        }
      }
    } finally {
      stop.set(true);
      shrinker.get();
    }
    System.out.println(failed + " of " + 20 * EFFORT + " migrations met a page that was gone");
  }
}
