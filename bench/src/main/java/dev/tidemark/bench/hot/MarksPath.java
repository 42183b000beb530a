package dev.tidemark.bench.hot;

import dev.tidemark.engine.log.Epoch;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Mapping;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.function.IntConsumer;

/** Pages of a guest of 16 GiB that the VMM says it has written, one by one, by chance. */
public final class MarksPath implements AutoCloseable {
  /** Marks in one measurement. */
  public static final int MARKS = 1 << 14;

  private static final long BYTES = 1L << 34;
  private static final long PAGES = BYTES >> 12;

  private final int threads;
  private final RamBlockLog log;
  private final AtomicLongArray array = new AtomicLongArray((int) (PAGES / 64));
  private final Mapping plane = Mapping.guarded(PAGES / 8);
  private final int[] pages = new int[MARKS];
  private final Mapping pagesForC = Mapping.guarded(MARKS * 4L);
  private final Thread helper;
  private volatile IntConsumer work;
  private volatile int asked;
  private volatile int answered;

  /**
   * @param threads 1, or 2 that share the marks
   */
  @SuppressWarnings("restricted")
  public MarksPath(int threads) {
    this.threads = threads;
    // Nothing here touches guest memory.
    log =
        new RamBlockLog(new RamBlock("ram", MemorySegment.ofAddress(1L << 40).reinterpret(BYTES)));
    SplittableRandom random = new SplittableRandom(BitmapInput.SEED);
    for (int i = 0; i < MARKS; i++) {
      pages[i] = random.nextInt((int) PAGES);
      pagesForC.segment().setAtIndex(ValueLayout.JAVA_INT, i, pages[i]);
    }
    helper = Thread.ofPlatform().daemon().name("marks").unstarted(this::help);
    if (threads == 2) {
      helper.start();
    }
  }

  private void help() {
    for (int done = 0; done >= 0; ) {
      int now = asked;
      if (now == done) {
        Thread.onSpinWait();
      } else if (now < 0) {
        return;
      } else {
        work.accept(1);
        done = now;
        answered = now;
      }
    }
  }

  /** Runs a part on each thread. */
  private long share(IntConsumer part) {
    if (threads == 2) {
      work = part;
      int now = asked + 1;
      asked = now;
      part.accept(0);
      while (answered != now) {
        Thread.onSpinWait();
      }
    } else {
      part.accept(0);
    }
    return MARKS;
  }

  private final IntConsumer marks = this::markPart;
  private final IntConsumer arrays = this::arrayPart;
  private final IntConsumer inC = this::cPart;

  private void markPart(int part) {
    for (int i = part; i < MARKS; i += threads) {
      log.mark(pages[i], 1);
    }
  }

  private void arrayPart(int part) {
    for (int i = part; i < MARKS; i += threads) {
      array.getAndAccumulate(pages[i] >>> 6, 1L << pages[i], (old, bit) -> old | bit);
    }
  }

  private void cPart(int part) {
    Rivals.atomicOrs(plane.segment(), pagesForC.segment(), part, MARKS, threads);
  }

  /** {@link RamBlockLog#mark} for each. */
  public long tidemark() {
    return share(marks);
  }

  /** Java's own: an {@link AtomicLongArray}, without a summary. */
  public long atomicLongArray() {
    return share(arrays);
  }

  /** Atomic ORs in C, without a summary. */
  public long rival() {
    return share(inC);
  }

  /** Brings the marks into the plane and takes them. */
  public long take() {
    log.mergeMarks();
    Epoch epoch = log.harvest();
    long found = epoch.pages();
    epoch.commit();
    return found;
  }

  @Override
  public void close() {
    asked = -1;
    try {
      helper.join();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    log.close();
    plane.close();
    pagesForC.close();
  }
}
