package dev.tidemark.engine.source;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** The order of things, with sources that write down what they are asked. */
class DirtyTrackerTest {
  private static final long PAGES = 1000;

  private final List<String> calls = new ArrayList<>();
  private Mapping memory;
  private DirtyTracker tracker;

  private final class Recorder implements DirtySource {
    private final String name;
    private final RamBlockLog log;
    private RuntimeException failure;
    private String failsAt = "";

    Recorder(String name) {
      this.name = name;
      this.log = tracker.logs().getFirst();
    }

    private void call(String what) {
      calls.add(name + "." + what + ":" + log.dirtyPages());
      if (what.equals(failsAt)) {
        throw failure;
      }
    }

    void failAt(String what) {
      failsAt = what;
      failure = new IllegalStateException(name + " fails at " + what);
    }

    @Override
    public String name() {
      return name;
    }

    @Override
    public void start() {
      call("start");
    }

    @Override
    public void sync() {
      call("sync");
    }

    @Override
    public void markAll() {
      call("markAll");
      try (FillPlane fill = log.fill()) {
        fill.set(100, 50);
      }
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

  @BeforeEach
  void setUp() {
    memory = Mapping.anonymous(PAGES * Pages.SIZE);
    tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
    tracker.coverByMarks(tracker.logs().getFirst(), 0, PAGES);
  }

  @AfterEach
  void tearDown() {
    tracker.close();
    memory.close();
  }

  @Test
  void everySourceIsOnBeforeAnyPageIsMarked() {
    tracker.add(new Recorder("a"));
    tracker.add(new Recorder("b"));
    tracker.start();
    assertEquals(List.of("a.start:0", "b.start:0"), calls);
    assertEquals(PAGES, tracker.logs().getFirst().dirtyPages());
  }

  @Test
  void whatJoinsLaterIsStartedThenItsPagesCountAsDirty() {
    tracker.start();
    tracker.harvest();
    tracker.commit();
    tracker.add(new Recorder("late"));
    assertEquals(List.of("late.start:0", "late.markAll:0"), calls);
    assertEquals(50, tracker.logs().getFirst().dirtyPages());
  }

  @Test
  void aSourceThatFailsToAnswerCostsItsPagesAndNothingElse() {
    Recorder broken = new Recorder("broken");
    tracker.add(broken);
    tracker.add(new Recorder("sound"));
    tracker.start();
    tracker.harvest();
    tracker.commit();
    broken.failAt("sync");
    calls.clear();
    tracker.sync();
    assertEquals(List.of("broken.sync:0", "broken.markAll:0", "sound.sync:50"), calls);
    assertEquals(50, tracker.harvest());
    assertEquals(1, tracker.failures());
    assertSame(broken.failure, tracker.lastFailure());
  }

  @Test
  void ifOneSourceCannotStartTheOthersAreStoppedAgain() {
    Recorder broken = new Recorder("broken");
    tracker.add(new Recorder("a"));
    tracker.add(broken);
    tracker.add(new Recorder("never"));
    broken.failAt("start");
    assertSame(broken.failure, assertThrows(IllegalStateException.class, tracker::start));
    assertEquals(List.of("a.start:0", "broken.start:0", "a.stop:0"), calls);
    assertFalse(tracker.isTracking());
  }

  @Test
  void stoppingStopsEverySourceAndReturnsOpenEpochs() {
    Recorder broken = new Recorder("broken");
    tracker.add(broken);
    tracker.add(new Recorder("b"));
    tracker.start();
    tracker.harvest();
    broken.failAt("stop");
    calls.clear();
    assertSame(broken.failure, assertThrows(IllegalStateException.class, tracker::stop));
    assertEquals(List.of("broken.stop:1000", "b.stop:1000"), calls);
    assertThrows(IllegalStateException.class, tracker::sync);
    broken.failAt("");
  }

  @Test
  void marksMadeBeforeASyncAreInItsHarvest() {
    tracker.start();
    tracker.harvest();
    tracker.commit();
    tracker.logs().getFirst().mark(999, 1);
    assertEquals(0, tracker.harvest(), "not before the sync");
    tracker.commit();
    tracker.sync();
    assertEquals(1, tracker.harvest());
  }

  @Test
  void twoBlocksOfOneNameAreRefused() {
    RamBlock block = new RamBlock("ram", memory.segment());
    assertThrows(IllegalArgumentException.class, () -> new DirtyTracker(List.of(block, block)));
    assertThrows(IllegalArgumentException.class, () -> new DirtyTracker(List.of()));
  }
}
