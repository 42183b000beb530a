package dev.tidemark.engine.migrate;

import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.stream.ReturnPath;
import dev.tidemark.engine.stream.SectionOutput;
import dev.tidemark.engine.stream.StreamWriter;
import dev.tidemark.engine.stream.Throttle;
import dev.tidemark.ffm.NativeAccess;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.Consumer;

/**
 * Moves a running guest away: precopy rounds while it runs, then stop, last sync, last pages,
 * state, and go.
 *
 * <p>Devices' own state goes between the rounds of RAM as long as the guest runs. At the stop, once
 * the vCPUs are out, all devices stop reaching each other before the first of them stops, and all
 * are stopped before the last sync; the rest of their state follows the last page. A guest is not
 * stopped before every device's initial data is out and acknowledged with its round, but for a
 * limit.
 *
 * <p>The guest is never at both ends and never lost: until go this side can take it back, and does
 * on any failure; after go it never runs it again. See {@link Outcome}.
 *
 * <p>Threading: {@link #run()} occupies one platform thread; {@link #cancel()} from any other.
 * Cost: sync, harvest, iteration and sending allocate nothing on the Java heap; a progress record
 * per round and per 100 ms does, and so does what a device tells of itself.
 */
public final class OutgoingMigration {
  /** A page with the word that says where it belongs. */
  private static final long RECORD_BYTES = Pages.SIZE + 8;

  private static final long PIECE_PAGES = 512;
  private static final long WINDOW_NANOS = 100_000_000;

  /** The least and the most of a device's state that a round takes, in bytes. */
  private static final long LEAST_DEVICE_BYTES = 64 << 20;

  private static final long MOST_DEVICE_BYTES = 4L << 30;

  /** Ends the migration with a reason; never leaves this class. */
  private static final class Abandoned extends RuntimeException {
    private static final long serialVersionUID = 1L;

    Abandoned(String reason) {
      super(reason, null, false, false);
    }
  }

  private final DirtyTracker tracker;
  private final Socket socket;
  private final GuestControl guest;
  private final List<OutgoingDevice> devices;
  private final List<Consumer<SectionOutput>> deviceParts;
  private final int[] deviceIds;
  private final List<StateSection> sections;
  private final MigrationOptions options;
  private final Consumer<Progress> listener;
  private final Throttle throttle;
  private final StreamWriter writer;
  private final ReturnPath answers;
  private final DowntimeEstimate estimate = new DowntimeEstimate();

  private long startNanos;
  private int round;
  private long dirtyPages;
  private long syncNanos;
  private long expectedNanos = Long.MAX_VALUE;
  private long expectedAtStop = -1;
  private long stoppedNanos;
  private long roundStart;
  private long windowStart;
  private long windowBytes;
  private boolean guestStopped;
  private boolean devicesStarted;
  private boolean claimed;

  // Guarded by this: cancel and go exclude each other.
  private boolean cancelled;
  private boolean gone;
  private boolean ended;
  private boolean stalled;

  /**
   * For a guest without devices that have a state of their own to move.
   *
   * @param tracker the guest's blocks and sources, tracking off; this migration's alone until it
   *     ends
   * @param socket connected to the destination; stays the caller's
   * @param guest stops and resumes the guest
   * @param sections its state, sent in this order
   * @param options what it may cost
   * @param listener told of progress, by the thread that runs the migration
   */
  public OutgoingMigration(
      DirtyTracker tracker,
      Socket socket,
      GuestControl guest,
      List<StateSection> sections,
      MigrationOptions options,
      Consumer<Progress> listener) {
    this(tracker, socket, guest, List.of(), sections, options, listener);
  }

  /**
   * @param tracker the guest's blocks and sources, tracking off; this migration's alone until it
   *     ends
   * @param socket connected to the destination; stays the caller's
   * @param guest stops and resumes the guest
   * @param devices stopped and resumed by this; their state goes out between the rounds and, the
   *     rest of it, after the last
   * @param sections its other state, sent in this order
   * @param options what it may cost
   * @param listener told of progress, by the thread that runs the migration
   */
  public OutgoingMigration(
      DirtyTracker tracker,
      Socket socket,
      GuestControl guest,
      List<? extends OutgoingDevice> devices,
      List<StateSection> sections,
      MigrationOptions options,
      Consumer<Progress> listener) {
    this.tracker = tracker;
    this.socket = socket;
    this.guest = guest;
    this.devices = List.copyOf(devices);
    this.deviceParts = this.devices.stream().<Consumer<SectionOutput>>map(d -> d::part).toList();
    this.deviceIds = new int[devices.size()];
    this.sections = List.copyOf(sections);
    this.options = options;
    this.listener = listener;
    this.throttle = new Throttle(options.maxBandwidth());
    this.writer = new StreamWriter(socket, throttle);
    this.answers = new ReturnPath(socket);
  }

  /**
   * Asks the migration to end. It ends as {@link Outcome#CANCELLED}, the guest running at the
   * source with tracking off, unless it was too late.
   *
   * @return false if go was said or it had ended already
   */
  public synchronized boolean cancel() {
    if (gone || ended) {
      return false;
    }
    cancelled = true;
    throttle.limit(0);
    // Wakes a writer or reader that waits for the other side.
    socket.shutdown();
    return true;
  }

  /**
   * Runs the migration to its end, once.
   *
   * @return how it ended; failures of the connection, the destination and the sources are outcomes,
   *     not exceptions
   */
  public MigrationResult run() {
    startNanos = System.nanoTime();
    // A migration has few rounds: without this the first of them would run interpreted.
    Bitmaps.warmUp();
    NativeAccess.warmUp();
    Thread watch = Thread.ofPlatform().name("tidemark-watch").daemon().start(this::watch);
    Outcome outcome = null;
    String reason = "";
    try {
      open();
      precopy();
      switchOver();
      go();
      outcome = Outcome.COMPLETED;
    } catch (RuntimeException e) {
      outcome = failure();
      reason = reason(e);
    } finally {
      synchronized (this) {
        ended = true;
        notifyAll();
      }
      watch.interrupt();
      reason = unwind(outcome, reason);
      writer.close();
    }
    return new MigrationResult(
        outcome,
        reason,
        tracker.sourceNames(),
        round,
        tracker.logs().stream().mapToLong(log -> log.block().bytes()).sum(),
        writer.pagesWritten(),
        writer.zeroPagesWritten(),
        writer.bytesWritten(),
        tracker.failures(),
        expectedAtStop,
        stoppedNanos,
        System.nanoTime() - startNanos);
  }

  private void open() {
    // Before anything is said: a tracker in use is nobody else's to start or stop.
    tracker.claim();
    claimed = true;
    List<RamBlock> blocks = tracker.logs().stream().map(RamBlockLog::block).toList();
    writer.begin(options.machine());
    if (options.returnPath()) {
      writer.openReturnPath();
      acknowledged(0);
    }
    tracker.start();
    writer.startRam(blocks);
    devicesStarted = true;
    for (int i = 0; i < deviceIds.length; i++) {
      OutgoingDevice device = devices.get(i);
      device.start();
      deviceIds[i] =
          writer.start(device.name(), device.instance(), device.version(), device::setup);
    }
  }

  /** Sends rounds until the rest is small enough to stop the guest, or a limit says so. */
  private void precopy() {
    while (true) {
      harvest();
      expectedNanos =
          estimate.nanos(tracker.pagesAtStop(dirtyPages) * RECORD_BYTES + deviceBytes());
      report(Progress.Phase.HARVESTED);
      if (expectedNanos <= options.downtimeLimit().toNanos() && initialDataSent()) {
        expectedAtStop = expectedNanos;
        break;
      }
      if (round == options.maxRounds() || timeIsUp()) {
        atLimit();
        break;
      }
      round++;
      writer.beginRound();
      boolean complete = send();
      writer.endRound();
      if (!complete || !sendDevices()) {
        atLimit();
        break;
      }
      acknowledged(round);
      sample(System.nanoTime(), windowStart == roundStart);
      tracker.commit();
      report(Progress.Phase.ARRIVED);
    }
    // The last sync will find these again, together with what is written until then.
    tracker.abort();
  }

  /** What all devices would have to send if they were stopped now. */
  private long deviceBytes() {
    long bytes = 0;
    for (int i = 0; i < deviceIds.length; i++) {
      bytes += Math.min(devices.get(i).pendingBytes(), Long.MAX_VALUE / 4 / deviceIds.length);
    }
    return bytes;
  }

  private boolean initialDataSent() {
    for (int i = 0; i < deviceIds.length; i++) {
      if (!devices.get(i).initialDataSent()) {
        return false;
      }
    }
    return true;
  }

  /**
   * Sends what the devices have by now, each as much as it has pending when its turn comes.
   *
   * @return false if the time was up before the end
   */
  private boolean sendDevices() {
    for (int i = 0; i < deviceIds.length; i++) {
      OutgoingDevice device = devices.get(i);
      long most = Math.clamp(device.pendingBytes(), LEAST_DEVICE_BYTES, MOST_DEVICE_BYTES);
      long begin = device.bytesSaved();
      long before;
      do {
        if (timeIsUp()) {
          return false;
        }
        before = device.bytesSaved();
        writer.part(deviceIds[i], deviceParts.get(i));
        sample(System.nanoTime(), false);
      } while (device.bytesSaved() > before && device.bytesSaved() - begin < most);
    }
    return true;
  }

  private boolean timeIsUp() {
    return System.nanoTime() - startNanos > options.timeLimit().toNanos();
  }

  private void atLimit() {
    if (options.atLimit() == AtLimit.FAIL) {
      throw new Abandoned(notConverging());
    }
  }

  private void harvest() {
    checkCancelled();
    long before = System.nanoTime();
    if (guestStopped) {
      tracker.lastSync();
    } else {
      tracker.sync();
    }
    roundStart = System.nanoTime();
    windowStart = roundStart;
    windowBytes = writer.bytesWritten();
    syncNanos = roundStart - before;
    estimate.synced(syncNanos);
    dirtyPages = tracker.harvest();
  }

  /**
   * Sends the open epochs.
   *
   * @return false if the time was up before the end, with the guest still running
   */
  private boolean send() {
    List<RamBlockLog> logs = tracker.logs();
    for (int i = 0; i < logs.size(); i++) {
      RamBlock block = logs.get(i).block();
      RunCursor runs = logs.get(i).epoch().runs();
      for (int found = runs.batch(); found > 0; found = runs.batch()) {
        for (int run = 0; run < found; run++) {
          if (!send(block, runs.start(run), runs.length(run))) {
            return false;
          }
        }
      }
    }
    return true;
  }

  private boolean send(RamBlock block, long first, long count) {
    long end = first + count;
    for (long page = first; page < end; page += PIECE_PAGES) {
      writer.pages(block, page, Math.min(PIECE_PAGES, end - page));
      sample(System.nanoTime(), false);
      if (!guestStopped && timeIsUp()) {
        return false;
      }
    }
    return true;
  }

  /** Takes in a stretch of sending when it was long enough to say something, or the only one. */
  private void sample(long now, boolean whatever) {
    long nanos = now - windowStart;
    if (nanos < WINDOW_NANOS && !whatever) {
      return;
    }
    long bytes = writer.bytesWritten();
    estimate.sent(bytes - windowBytes, nanos);
    windowStart = now;
    windowBytes = bytes;
    if (!whatever) {
      checkCancelled();
      report(guestStopped ? Progress.Phase.STOPPED : Progress.Phase.SENDING);
    }
  }

  /** Waits until the destination has taken in everything up to here. */
  private void acknowledged(int number) {
    if (options.returnPath()) {
      writer.ping(number);
      answers.awaitPong(number, answerMillis());
    } else {
      writer.flush();
    }
  }

  private void switchOver() {
    checkCancelled();
    guestStopped = true;
    guest.stop();
    stoppedNanos = System.nanoTime();
    devices.forEach(OutgoingDevice::quiesce);
    devices.forEach(OutgoingDevice::stop);
    List<SavedSection> saved = new ArrayList<>();
    for (StateSection section : sections) {
      SavedSection buffer = new SavedSection();
      section.save().accept(buffer);
      saved.add(buffer);
    }
    throttle.limit(0);
    harvest();
    round++;
    report(Progress.Phase.STOPPED);
    writer.beginRound();
    send();
    writer.endRound();
    writer.endRam();
    for (int i = 0; i < deviceIds.length; i++) {
      writer.end(deviceIds[i], devices.get(i)::complete);
    }
    for (int i = 0; i < sections.size(); i++) {
      StateSection section = sections.get(i);
      byte[] data = saved.get(i).toByteArray();
      writer.full(section.name(), section.instance(), section.version(), out -> out.bytes(data));
    }
    acknowledged(round);
    tracker.commit();
  }

  private void go() {
    synchronized (this) {
      checkCancelled();
      // From here on: even half of the byte that says go may have arrived.
      gone = true;
    }
    writer.eof();
    if (!options.returnPath()) {
      // A QEMU does not finish before it has this, or the end of the connection.
      writer.description("{\"page_size\": " + Pages.SIZE + ", \"devices\": []}");
    } else {
      int status = answers.awaitShut(answerMillis());
      if (status != 0) {
        throw new Abandoned("the destination could not run the guest, status " + status);
      }
    }
  }

  private int answerMillis() {
    return (int) Math.min(Integer.MAX_VALUE, options.answerLimit().toMillis());
  }

  private synchronized void checkCancelled() {
    if (cancelled) {
      throw new Abandoned("cancelled");
    }
  }

  private synchronized Outcome failure() {
    if (gone) {
      return Outcome.UNKNOWN;
    }
    return cancelled ? Outcome.CANCELLED : Outcome.FAILED;
  }

  private synchronized String reason(RuntimeException failure) {
    if (gone) {
      return "the destination was told to go and did not confirm: it may run the guest, so this side"
          + " does not ("
          + failure.getMessage()
          + ")";
    }
    if (cancelled) {
      return "cancelled";
    }
    if (stalled) {
      return "the destination took nothing for "
          + options.answerLimit().multipliedBy(2).toSeconds()
          + " s";
    }
    String message = failure.getMessage();
    return message != null ? message : failure.toString();
  }

  /** Leaves this side as the outcome says. */
  private String unwind(Outcome outcome, String reason) {
    boolean mine;
    synchronized (this) {
      mine = outcome != Outcome.COMPLETED && !gone;
    }
    StringBuilder text = new StringBuilder(reason);
    if (devicesStarted) {
      leaveDevices(mine, text);
    }
    if (mine && guestStopped) {
      try {
        guest.resume();
      } catch (RuntimeException e) {
        text.append("; and the guest could not be resumed: ").append(e.getMessage());
      }
    }
    try {
      if (claimed) {
        tracker.release();
      }
    } catch (RuntimeException e) {
      text.append(text.isEmpty() ? "" : "; ")
          .append("tracking could not be turned off: ")
          .append(e.getMessage());
    }
    return text.toString();
  }

  /** Leaves the devices stopped, or has all of them ready to run before the first runs. */
  private void leaveDevices(boolean running, StringBuilder text) {
    List<Consumer<OutgoingDevice>> steps =
        running
            ? List.of(OutgoingDevice::prepareToRun, OutgoingDevice::run)
            : List.of(OutgoingDevice::leave);
    for (Consumer<OutgoingDevice> step : steps) {
      for (OutgoingDevice device : devices) {
        try {
          step.accept(device);
        } catch (RuntimeException e) {
          text.append(text.isEmpty() ? "" : "; ")
              .append(device.name())
              .append(running ? ", back to running: " : ", to be left stopped: ")
              .append(e.getMessage());
        }
      }
    }
  }

  private String notConverging() {
    String limit =
        timeIsUp()
            ? "after " + options.timeLimit().toSeconds() + " s"
            : "after " + options.maxRounds() + " rounds";
    RuntimeException source = tracker.lastFailure();
    return String.format(
        Locale.ROOT,
        "%s there are still %d dirty pages, %d ms of downtime at %d MB/s, over the limit of %d ms%s: allow more bandwidth, more downtime, or the final stop",
        limit,
        dirtyPages,
        expectedNanos / 1_000_000,
        estimate.bytesPerSecond() / 1_000_000,
        options.downtimeLimit().toMillis(),
        source == null
            ? ""
            : "; a source failed " + tracker.failures() + " times, last: " + source.getMessage());
  }

  private void report(Progress.Phase phase) {
    listener.accept(
        new Progress(
            phase,
            Math.max(round + (phase == Progress.Phase.HARVESTED ? 1 : 0), 1),
            dirtyPages,
            writer.pagesWritten(),
            writer.zeroPagesWritten(),
            writer.bytesWritten(),
            estimate.bytesPerSecond(),
            expectedNanos == Long.MAX_VALUE ? -1 : expectedNanos,
            syncNanos,
            System.nanoTime() - startNanos));
  }

  /** Ends a connection on which nothing moves any more, so that no call waits for ever. */
  private synchronized void watch() {
    long limit = options.answerLimit().multipliedBy(2).toNanos();
    long seen = -1;
    long since = System.nanoTime();
    try {
      while (!ended) {
        wait(250);
        long bytes = writer.bytesWritten();
        long now = System.nanoTime();
        if (bytes != seen) {
          seen = bytes;
          since = now;
        } else if (now - since > limit && !ended) {
          stalled = true;
          socket.shutdown();
          return;
        }
      }
    } catch (InterruptedException e) {
      // The migration has ended.
    }
  }
}
