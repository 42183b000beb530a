package dev.tidemark.bench.guest;

import dev.tidemark.engine.log.RamBlock;
import java.time.Duration;
import java.util.Optional;

/**
 * A guest that notices when its memory is not what it left there. It walks its test pages in a
 * scattered order for ever, compares each with what it wrote there the last time, and writes what
 * it will expect the next time. A thread of the VMM writes some more pages, which the guest checks
 * too. It stops at the first page that is wrong.
 *
 * <p>Life: created; {@link #start()} on the first host, {@link #loadState} and {@link #resume()} on
 * the next; {@link #pause()} and {@link #resume()} any number of times; {@link #close()}.
 *
 * <p>Threading: one controlling thread at a time; what only reads, any thread.
 */
public interface SelfCheckingGuest extends AutoCloseable {
  /** Its memory, one block. */
  RamBlock ram();

  /** Sets who is told of the VMM's own writes from now on; null for nobody. */
  void onVmmWrite(PageMarker marker);

  /**
   * Sets how fast it goes.
   *
   * @param pagesPerSecond test pages checked and written each second; 0 for as fast as it can
   */
  void setRate(long pagesPerSecond);

  /**
   * Prepares the memory, which must be zero, and runs.
   *
   * @throws IllegalStateException unless it is fresh
   */
  void start();

  /**
   * Stops all writing: when this returns, the guest's code is not running, its last I/O is
   * complete, and the VMM's writer has finished and reported what it was writing. Does nothing when
   * it is paused already.
   */
  void pause();

  /**
   * Runs on from where it was paused, or from the loaded state. Writes nothing itself.
   *
   * @throws IllegalStateException if it found an error, or has nothing to run
   */
  void resume();

  /** How many test pages it has checked since its start, on any host; rounded down a little. */
  long pagesChecked();

  /**
   * How it got on since the last call, to within a millisecond and 64 pages.
   *
   * @param until the end of that time by {@link System#nanoTime()}, in the past
   */
  Throughput throughput(long until);

  /** How many test pages it has. */
  long testPages();

  /** What it found wrong, in one line; empty as long as nothing is. */
  Optional<String> error();

  /**
   * Waits until it has checked every page, the mailbox included, since the last {@link #start()} or
   * {@link #resume()}.
   *
   * @return true if it has, and found nothing wrong; false if it found something, was paused, or
   *     the time is over
   * @throws InterruptedException if the thread was interrupted
   */
  boolean awaitFullPass(Duration timeout) throws InterruptedException;

  /** {@link System#nanoTime()} when its code last stopped running; valid while paused. */
  long lastExitNanos();

  /**
   * {@link System#nanoTime()} just before its code first ran since the last {@link #start()} or
   * {@link #resume()}; 0 until then.
   */
  long firstRunNanos();

  /**
   * Everything that is not in its memory and that it needs to go on elsewhere.
   *
   * @throws IllegalStateException while it runs
   */
  byte[] saveState();

  /**
   * Takes over a saved state; the memory comes by another way, before {@link #resume()}.
   *
   * @throws IllegalArgumentException if the state is not one of such a guest with as much memory
   * @throws IllegalStateException unless it is fresh
   */
  void loadState(byte[] state);

  /** Stops it and frees its memory, which nobody may use any more. */
  @Override
  void close();

  /** Allocates all of its memory, so that a guest that arrives has no page to wait for. */
  void populate();
}
