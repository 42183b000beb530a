package dev.tidemark.bench.guest;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.ffm.Mapping;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.locks.LockSupport;

/** What both guests share: the thread, its start and stop, the pace, the mailbox, the state. */
abstract class GuestBase implements SelfCheckingGuest {
  /** Test pages between two checks of the mailbox and of the pace. */
  static final int BATCH = 64;

  private static final int STATE_MAGIC = 0x544d4731;

  /** How far behind its pace a guest may be and still catch up. */
  static final long MOST_LAG_NANOS = 20_000_000;

  final GuestMemory map;
  final RamBlock ram;

  /** The guest's thread shall come back; set before it is kicked. */
  volatile boolean stop = true;

  private final Mapping memory;
  private final MailboxWriter writer;
  private final ThroughputMeter meter = new ThroughputMeter();
  private final int kind;
  private Thread thread;

  private volatile long rate;
  private volatile long pages;
  private volatile long passTarget = Long.MAX_VALUE;
  private volatile String error;
  private volatile long lastExit;
  private volatile long firstRun;

  /** The next five are guarded by this. */
  private boolean threadReady;

  private boolean threadOver;
  private boolean hasState;
  private boolean running;
  private boolean closed;

  /**
   * Whether the mailbox's writer is on, used on the guest's thread only. It waits for the first
   * check, or it could overwrite a page that did not arrive before the guest has looked at it.
   */
  private boolean writing;

  /** The pace, used on the guest's thread only. */
  private long paceRate;

  private long paceDue;

  GuestBase(GuestMemory map, Mapping memory, RamBlock ram, int kind, long rate) {
    this.map = map;
    this.memory = memory;
    this.kind = kind;
    this.ram = ram;
    this.writer = new MailboxWriter(memory.segment());
    setRate(rate);
  }

  /** Runs once on the guest's thread, before anything else. */
  void threadStarts() {}

  /** Runs the guest's code until {@link #stop} or {@link #fail}; sets the two times. */
  abstract void runGuest();

  /** Makes {@link #runGuest} look at {@link #stop} soon. */
  abstract void kick();

  /** Runs last on the guest's thread. */
  void threadEnds() {}

  @Override
  public final void populate() {
    memory.populate();
  }

  /** Prepares what the guest's own code needs, in memory that is zero. */
  abstract void prepare();

  abstract void save(ByteBuffer state);

  abstract void load(ByteBuffer state);

  abstract int stateBytes();

  /** Frees what the guest holds beside its memory. */
  abstract void free();

  final void launch(String name) {
    thread = Thread.ofPlatform().daemon().name(name).start(this::guestThread);
    synchronized (this) {
      while (!threadReady && !threadOver) {
        waitUninterruptibly();
      }
    }
    if (error != null) {
      String reason = error;
      close();
      throw new IllegalStateException(reason);
    }
  }

  /** The guest's thread, for measuring. */
  final long threadId() {
    return thread.threadId();
  }

  private void guestThread() {
    try {
      threadStarts();
      synchronized (this) {
        threadReady = true;
        notifyAll();
      }
      while (awaitRun()) {
        writing = false;
        runGuest();
        meter.end(lastExit);
        synchronized (this) {
          running = false;
          notifyAll();
        }
      }
    } catch (Throwable t) {
      fail(t.toString());
    } finally {
      try {
        threadEnds();
      } catch (RuntimeException e) {
        fail(e.toString());
      }
      synchronized (this) {
        running = false;
        threadOver = true;
        notifyAll();
      }
    }
  }

  private synchronized boolean awaitRun() {
    while (!closed && (!running || error != null)) {
      waitUninterruptibly();
    }
    return !closed;
  }

  private void waitUninterruptibly() {
    boolean interrupted = false;
    while (true) {
      try {
        wait();
        break;
      } catch (InterruptedException e) {
        interrupted = true;
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  /** Records the first error and ends the run. */
  final synchronized void fail(String reason) {
    if (error == null) {
      error = reason;
    }
    stop = true;
    notifyAll();
  }

  /** Reports a page that the guest's thread wrote and nothing else tracks; after the write. */
  final void wrote(long page) {
    writer.mark(page, 1);
  }

  final void ran(long firstRunNanos) {
    firstRun = firstRunNanos;
    meter.begin(firstRunNanos);
  }

  final void left(long lastExitNanos) {
    lastExit = lastExitNanos;
  }

  /** Counts pages and keeps the pace; on the guest's thread, after it has checked the mailbox. */
  final void tick(long checked) {
    if (!writing) {
      writer.set(true);
      writing = true;
    }
    long now = pages + checked;
    pages = now;
    if (now >= passTarget) {
      synchronized (this) {
        passTarget = Long.MAX_VALUE;
        notifyAll();
      }
    }
    long time = System.nanoTime();
    meter.did(time, checked);
    long done = time;
    long wanted = rate;
    if (wanted == 0) {
      return;
    }
    if (wanted != paceRate || paceDue - time < -MOST_LAG_NANOS) {
      paceRate = wanted;
      paceDue = time;
    }
    paceDue += checked * 1_000_000_000L / wanted;
    while (!stop && rate == wanted && paceDue - time > 0) {
      LockSupport.parkNanos(paceDue - time);
      time = System.nanoTime();
    }
    meter.goesOn(time, Math.clamp(paceDue, done, time));
  }

  @Override
  public final RamBlock ram() {
    return ram;
  }

  @Override
  public final void onVmmWrite(PageMarker marker) {
    writer.setMarker(marker);
  }

  @Override
  public final void setRate(long pagesPerSecond) {
    if (pagesPerSecond < 0) {
      throw new IllegalArgumentException(pagesPerSecond + " pages a second");
    }
    rate = pagesPerSecond;
    if (thread != null) {
      LockSupport.unpark(thread);
    }
  }

  @Override
  public final synchronized void start() {
    if (hasState) {
      throw new IllegalStateException("the guest was started or loaded before: resume it");
    }
    checkOpen();
    prepare();
    Mailbox.initialize(ram.memory());
    writer.mark(0, GuestMemory.FIRST_TEST_PAGE);
    hasState = true;
    resume();
  }

  @Override
  public final synchronized void resume() {
    checkOpen();
    if (!hasState) {
      throw new IllegalStateException("nothing to run: start the guest, or load its state");
    }
    if (error != null) {
      throw new IllegalStateException("the guest stopped with an error: " + error);
    }
    if (running) {
      return;
    }
    // The first batch may have begun before the last pause.
    passTarget = pages + map.testPages + BATCH;
    firstRun = 0;
    stop = false;
    running = true;
    notifyAll();
  }

  private void checkOpen() {
    if (closed) {
      throw new IllegalStateException("the guest is closed");
    }
  }

  @Override
  public final void pause() {
    synchronized (this) {
      checkOpen();
      stop = true;
    }
    stopRunning();
  }

  private void stopRunning() {
    kick();
    LockSupport.unpark(thread);
    synchronized (this) {
      while (running && !threadOver) {
        waitUninterruptibly();
      }
      running = false;
      passTarget = Long.MAX_VALUE;
      notifyAll();
    }
    writer.set(false);
  }

  @Override
  public final long pagesChecked() {
    return pages;
  }

  @Override
  public final Throughput throughput(long until) {
    return meter.take(until);
  }

  @Override
  public final long testPages() {
    return map.testPages;
  }

  @Override
  public final Optional<String> error() {
    return Optional.ofNullable(error);
  }

  @Override
  public final synchronized boolean awaitFullPass(Duration timeout) throws InterruptedException {
    long deadline = System.nanoTime() + timeout.toNanos();
    while (running && error == null && passTarget != Long.MAX_VALUE) {
      long left = deadline - System.nanoTime();
      if (left <= 0) {
        return false;
      }
      wait(left / 1_000_000, (int) (left % 1_000_000));
    }
    return running && error == null;
  }

  @Override
  public final long lastExitNanos() {
    return lastExit;
  }

  @Override
  public final long firstRunNanos() {
    return firstRun;
  }

  @Override
  public final synchronized byte[] saveState() {
    checkOpen();
    if (running || !hasState) {
      throw new IllegalStateException("only a paused guest has a state to save");
    }
    ByteBuffer state = ByteBuffer.allocate(headerBytes() + stateBytes());
    state.putInt(STATE_MAGIC).putInt(kind).putLong(map.bytes).putLong(pages).putLong(writer.next());
    save(state);
    return state.array();
  }

  private static int headerBytes() {
    return 2 * Integer.BYTES + 3 * Long.BYTES;
  }

  @Override
  public final synchronized void loadState(byte[] bytes) {
    checkOpen();
    if (hasState) {
      throw new IllegalStateException("the guest was started or loaded before");
    }
    if (bytes.length != headerBytes() + stateBytes()) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "guest state of %d bytes, not %d",
              bytes.length,
              headerBytes() + stateBytes()));
    }
    ByteBuffer state = ByteBuffer.wrap(bytes);
    int magic = state.getInt();
    int savedKind = state.getInt();
    long savedBytes = state.getLong();
    long savedPages = state.getLong();
    long savedNext = state.getLong();
    if (magic != STATE_MAGIC || savedKind != kind || savedBytes != map.bytes) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "guest state 0x%x of kind %d with %d bytes of RAM, not 0x%x of kind %d with %d",
              magic,
              savedKind,
              savedBytes,
              STATE_MAGIC,
              kind,
              map.bytes));
    }
    if (savedPages < 0 || savedNext < Mailbox.PAGES) {
      throw new IllegalArgumentException(
          "guest state with " + savedPages + " pages and message " + savedNext);
    }
    try {
      load(state);
    } catch (BufferUnderflowException e) {
      throw new IllegalArgumentException("guest state is cut short", e);
    }
    pages = savedPages;
    writer.setNext(savedNext);
    hasState = true;
  }

  @Override
  public final void close() {
    synchronized (this) {
      if (closed) {
        return;
      }
      closed = true;
      stop = true;
      notifyAll();
    }
    stopRunning();
    Joins.uninterruptibly(thread);
    writer.close();
    free();
    memory.close();
  }
}
