package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtySource;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Memfd;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A page is protected before it is read, and before it is looked up whether it is a hole. */
@Timeout(300)
class ProtectedPagesTest {
  private static final long PAGES = 8192;
  private static final long CHUNK = 1024;

  /** A guest that writes pages just before they are protected, which nothing tells of. */
  private static final class LastMoment implements DirtySource {
    private final RamBlockLog log;
    private final MemorySegment memory;
    private long unprotected = Long.MAX_VALUE;
    private boolean lastSync;
    private long written;

    LastMoment(RamBlockLog log) {
      this.log = log;
      this.memory = log.block().memory();
    }

    @Override
    public String name() {
      return "last-moment";
    }

    @Override
    public void cover(Coverage coverage) {
      coverage.add(log, 0, PAGES);
    }

    @Override
    public void start() {}

    @Override
    public void sync() {
      throw new AssertionError("a migration that runs leaves pages unprotected");
    }

    @Override
    public void syncUnprotected() {
      unprotected = 0;
    }

    @Override
    public boolean protect(RamBlockLog asked, long page, long count) {
      assertTrue(!lastSync, "nothing is protected in the last round");
      assertEquals(log, asked);
      boolean any = unprotected < page + count;
      while (unprotected < page + count) {
        // In every second chunk, so that the hole before it reaches into it.
        if (unprotected / CHUNK % 2 == 1) {
          for (long at = unprotected + 5; at < unprotected + CHUNK; at += 7) {
            memory.set(ValueLayout.JAVA_LONG, at * Pages.SIZE, ++written);
          }
        }
        unprotected += CHUNK;
      }
      return any;
    }

    @Override
    public void lastSync() {
      lastSync = true;
      try (FillPlane fill = log.fill()) {
        fill.set(0, 1);
      }
    }

    @Override
    public void markAll() {
      log.markAll();
    }

    @Override
    public void stop() {}

    @Override
    public void close() {}
  }

  @Test
  void whatIsWrittenUntilAPageIsProtectedArrives() throws Exception {
    try (Ends ends = new Ends(1);
        Memfd memfd = Memfd.create("last-moment", PAGES * Pages.SIZE);
        Mapping memory = memfd.map();
        Mapping copy = Mapping.anonymous(PAGES * Pages.SIZE);
        DirtyTracker tracker =
            new DirtyTracker(List.of(RamBlock.ofFile("ram", memory.segment(), memfd.fd(), 0)))) {
      LastMoment source = new LastMoment(tracker.logs().getFirst());
      tracker.add(source);
      CompletableFuture<IncomingResult> arrival =
          Ends.receive(
              new IncomingMigration(
                  "tidemark",
                  List.of(new RamBlock("ram", copy.segment())),
                  ends.in,
                  List.of(),
                  List.of(),
                  ends.there,
                  Duration.ofSeconds(60)),
              ends.in);
      MigrationResult result =
          new OutgoingMigration(
                  tracker, ends.out, ends.here, List.of(), Ends.OPTIONS, progress -> {})
              .run();
      assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
      assertEquals(null, Ends.failure(arrival));
      assertEquals(2, result.rounds());
      assertEquals(PAGES / CHUNK / 2 * ((CHUNK - 5 + 6) / 7), source.written);
      assertEquals(source.written, result.pagesSent());
      assertEquals(0, result.sourceFailures());
      long at = memory.segment().mismatch(copy.segment());
      assertEquals(-1, at, () -> "lost: page " + at / Pages.SIZE);
    }
  }
}
