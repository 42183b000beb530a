package dev.tidemark.engine.migrate;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Memfd;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.SplittableRandom;

/** A guest for tests: memory, and a thread that writes a word of random pages while it runs. */
final class WritingGuest implements GuestControl, AutoCloseable {
  private final Memfd memfd;
  private final Mapping mapping;
  private final RamBlock block;
  private final long writesPerMilli;
  private volatile boolean running;
  private volatile boolean closed;
  private volatile long writes;
  private volatile int stops;
  private final Thread thread;
  private boolean parked = true;

  /**
   * @param writesPerMilli pages written in each ms, 0 for none
   */
  WritingGuest(String name, long pages, long writesPerMilli, long seed) {
    memfd = Memfd.create("guest", pages * Pages.SIZE);
    mapping = memfd.map();
    block = new RamBlock(name, mapping.segment());
    this.writesPerMilli = writesPerMilli;
    thread = Thread.ofPlatform().daemon().name("guest").start(() -> write(seed));
  }

  RamBlock block() {
    return block;
  }

  /** Fills every second page, so that there are zero pages too. */
  void fill() {
    for (long page = 0; page < block.pages(); page += 2) {
      block.memory().asSlice(page * Pages.SIZE, Pages.SIZE).fill((byte) (page / 2 + 1));
    }
  }

  long writes() {
    return writes;
  }

  int stops() {
    return stops;
  }

  boolean isRunning() {
    return running;
  }

  private void write(long seed) {
    var random = new SplittableRandom(seed);
    MemorySegment memory = block.memory();
    try {
      while (true) {
        synchronized (this) {
          while (!running && !closed) {
            parked = true;
            notifyAll();
            wait();
          }
          if (closed) {
            parked = true;
            notifyAll();
            return;
          }
        }
        for (long i = 0; i < writesPerMilli && running; i++) {
          long page = random.nextLong(block.pages());
          memory.set(
              ValueLayout.JAVA_LONG,
              page * Pages.SIZE + 8 * random.nextLong(Pages.SIZE / 8),
              random.nextLong(4));
          writes++;
        }
        Thread.sleep(1);
      }
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  @Override
  public synchronized void stop() {
    stops++;
    running = false;
    try {
      while (!parked) {
        wait();
      }
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  @Override
  public synchronized void resume() {
    parked = false;
    running = true;
    notifyAll();
  }

  @Override
  public void close() {
    synchronized (this) {
      closed = true;
      running = false;
      notifyAll();
    }
    try {
      thread.join();
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
    mapping.close();
    memfd.close();
  }
}
