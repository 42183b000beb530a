package dev.tidemark.engine.log;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** A log that is closed while it is used: an exception, never a signal that ends the process. */
class ClosedLogTest {
  private static final int EFFORT = Integer.getInteger("tidemark.effort", 1);
  private static final int PAGES = 100_000;

  private final Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
  private final RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory.segment()));

  @AfterEach
  void close() {
    log.close();
    memory.close();
  }

  /** More runs than a batch holds. */
  private static Epoch harvest(RamBlockLog log) {
    try (FillPlane fill = log.fill()) {
      for (int page = 0; page < PAGES; page += 2) {
        fill.set(page, 1);
      }
    }
    return log.harvest();
  }

  private void assertClosed(Runnable use) {
    String message = assertThrows(ClosedException.class, use::run).getMessage();
    assertTrue(message.contains("block ram is closed"), message);
  }

  @Test
  void aCursorGivesNoFurtherBatch() {
    RunCursor runs = harvest(log).runs();
    int first = runs.batch();
    assertTrue(first > 0 && first < PAGES / 2);
    log.close();
    assertClosed(runs::batch);
    assertEquals(0, runs.start(0), "what the last batch held stays readable");
  }

  @Test
  void anEpochCannotBeReadCommittedOrAborted() {
    Epoch epoch = harvest(log);
    log.close();
    assertClosed(epoch::runs);
    assertClosed(epoch::pages);
    assertClosed(epoch::commit);
    assertClosed(epoch::abort);
    epoch.close();
    assertClosed(log::harvest);
  }

  @Test
  void aCursorOfAnEpochThatEndedSaysSo() {
    RunCursor runs = harvest(log).runs();
    assertTrue(runs.batch() > 0);
    log.epoch().commit();
    assertThrows(IllegalStateException.class, runs::batch);
    harvest(log);
    assertThrows(IllegalStateException.class, runs::batch, "it is on the plane that fills now");
    assertTrue(log.epoch().runs().batch() > 0);
  }

  @Test
  void aFillPlaneIsForItsHolderAlone() throws InterruptedException {
    FillPlane fill = log.fill();
    fill.close();
    assertNotHeld(fill);
    log.close();
    assertNotHeld(fill);
  }

  @Test
  void aFillPlaneOfAnotherThreadIsNotMine() throws InterruptedException {
    try (FillPlane fill = log.fill()) {
      AtomicReference<Throwable> failure = new AtomicReference<>();
      Thread other =
          Thread.ofPlatform()
              .start(
                  () -> {
                    try {
                      assertNotHeld(fill);
                    } catch (Throwable e) {
                      failure.set(e);
                    }
                  });
      other.join();
      assertNull(failure.get());
      fill.set(0, 1);
    }
  }

  @Test
  void closingTheLogUnderItsOwnFillPlaneEndsThat() {
    try (FillPlane fill = log.fill()) {
      log.close();
      assertNotHeld(fill);
    }
  }

  private void assertNotHeld(FillPlane fill) {
    assertClosed(fill::segment);
    assertClosed(() -> fill.set(0, 1));
    try (Mapping source = Mapping.guarded(64)) {
      assertClosed(() -> fill.merge(source.segment(), 0, 0, 8));
      assertClosed(() -> fill.mergeAndClear(source.segment(), 0, 0, 8));
    }
  }

  @Test
  void everythingElseThrowsToo() {
    log.close();
    log.close();
    assertClosed(() -> log.mark(0, 1));
    assertClosed(log::markAll);
    assertClosed(log::mergeMarks);
    assertClosed(log::fill);
    assertClosed(log::dirtyPages);
    assertClosed(log::counters);
  }

  @Test
  void whateverAnotherThreadDoesMeanwhileEndsInAnException() throws InterruptedException {
    Consumer<RamBlockLog> iterate =
        open -> {
          RunCursor runs = harvest(open).runs();
          while (true) {
            while (runs.batch() > 0) {
              // To the last batch, and again.
            }
            open.epoch().runs();
          }
        };
    Consumer<RamBlockLog> commit =
        open -> {
          while (true) {
            harvest(open).commit();
          }
        };
    Consumer<RamBlockLog> mark =
        open -> {
          while (true) {
            open.mark(0, PAGES);
            open.mergeMarks();
          }
        };
    for (int round = 0; round < 30 * EFFORT; round++) {
      for (Consumer<RamBlockLog> use : List.of(iterate, commit, mark)) {
        RamBlockLog other = new RamBlockLog(new RamBlock("ram", memory.segment()));
        AtomicReference<Throwable> end = new AtomicReference<>();
        Thread user =
            Thread.ofPlatform()
                .start(
                    () -> {
                      try {
                        use.accept(other);
                      } catch (Throwable e) {
                        end.set(e);
                      }
                    });
        while (other.counters().harvests() == 0 && use != mark) {
          Thread.onSpinWait();
        }
        Thread.sleep(round % 4);
        other.close();
        user.join(60_000);
        assertFalse(user.isAlive());
        assertEquals(ClosedException.class, end.get().getClass(), () -> end.get().toString());
      }
    }
  }
}
