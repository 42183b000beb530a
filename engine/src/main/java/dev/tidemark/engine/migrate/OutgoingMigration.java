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
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.NativeAccess;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Set;
import java.util.SplittableRandom;
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
 * on any failure, {@link Error}s of callbacks included; after go it never runs it again. Each step
 * back is tried whatever became of the one before. See {@link Outcome}.
 *
 * <p>Threading: {@link #run()} occupies one platform thread; {@link #cancel()} from any other, or
 * an interrupt of that thread, ends it. Cost: sync, harvest, iteration and sending allocate nothing
 * on the Java heap of their own; up to 40 bytes for each call of the kernel are the JDK's ({@link
 * NativeAccess}). A progress record per round and per 100 ms does, and so does what a device tells
 * of itself.
 */
public final class OutgoingMigration {
  private static final long PIECE_PAGES = 512;

  /** Under a bandwidth limit. */
  private static final long PIECES_PER_SECOND = 10;

  private static final long WINDOW_NANOS = 100_000_000;

  /** The least and the most of a device's state that a round takes, in bytes. */
  private static final long LEAST_DEVICE_BYTES = 64 << 20;

  private static final long MOST_DEVICE_BYTES = 4L << 30;

  /** At least two regions of most heaps: memory that a collector can hand out again. */
  static final int RESERVE_BYTES = 1 << 20;

  private static final String NO_WORDS = "failed, and the reason could not be put into words";

  private static final String NO_WORDS_NOR_GUEST =
      NO_WORDS + "; and the guest could not be resumed";

  private static final Outcome[] OUTCOMES = Outcome.values();

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
  private final OutgoingDevice[] devices;
  private final List<Consumer<SectionOutput>> deviceParts;
  private final int[] deviceIds;
  private final List<StateSection> sections;
  private final MigrationOptions options;
  private final Consumer<Progress> listener;
  private final Throttle throttle;
  private final StreamWriter writer;
  private final DowntimeEstimate estimate = new DowntimeEstimate();
  private final SplittableRandom pingIds = new SplittableRandom();
  private final long timeLimitNanos;
  private final long piecePages;

  /** What each step back failed with: the devices' first steps, their second, guest, tracker. */
  private final Throwable[] stepFailures;

  /**
   * How it ends, by outcome, if there is no memory to say it: then where the guest is must not get
   * lost. Its counts are those of the last {@link #prepareResults}.
   */
  private final MigrationResult[] prepared = new MigrationResult[OUTCOMES.length];

  /** The same for a guest that could not be resumed. */
  private final MigrationResult[] preparedStopped = new MigrationResult[OUTCOMES.length];

  private final long ramBytes;
  private List<String> sources = List.of();

  /** Given up when it has failed, for what comes then. */
  private byte[] reserve;

  private ReturnPath answers;
  private Observer observer;

  private long startNanos;
  private int round;
  private long dirtyPages;
  private long syncNanos;
  private long expectedNanos = Long.MAX_VALUE;
  private long expectedAtStop = -1;
  private long stoppedNanos;
  private long bytesAtStop;
  private long roundStart;
  private long windowStart;
  private long windowBytes;
  private boolean guestStopped;
  private boolean forced;
  private boolean devicesStarted;
  private boolean claimed;

  // Guarded by this: cancel, deadline and go exclude each other.
  private Thread runner;
  private boolean cancelled;
  private boolean gone;
  private boolean refused;
  private boolean ended;
  private boolean hasDeadline;
  private long deadline;
  private boolean late;

  /**
   * For a guest without devices that have a state of their own to move.
   *
   * @param tracker the guest's blocks and sources, tracking off; this migration's alone until it
   *     ends
   * @param socket connected to the destination; stays the caller's
   * @param guest stops and resumes the guest
   * @param sections its state, sent in this order
   * @param options what it may cost
   * @param listener told of progress, by a thread of the migration's own, which the migration does
   *     not wait for: one that is slow misses some, one that throws is logged
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
   * @param listener told of progress, by a thread of the migration's own, which the migration does
   *     not wait for: one that is slow misses some, one that throws is logged
   */
  public OutgoingMigration(
      DirtyTracker tracker,
      Socket socket,
      GuestControl guest,
      List<? extends OutgoingDevice> devices,
      List<StateSection> sections,
      MigrationOptions options,
      Consumer<Progress> listener) {
    this.tracker = Objects.requireNonNull(tracker, "tracker");
    this.socket = Objects.requireNonNull(socket, "socket");
    this.guest = Objects.requireNonNull(guest, "guest");
    this.devices = devices.toArray(OutgoingDevice[]::new);
    this.deviceParts =
        Arrays.stream(this.devices).<Consumer<SectionOutput>>map(d -> d::part).toList();
    this.deviceIds = new int[this.devices.length];
    this.stepFailures = new Throwable[2 * this.devices.length + 2];
    this.sections = List.copyOf(sections);
    this.options = options;
    this.listener = Objects.requireNonNull(listener, "listener");
    this.throttle = new Throttle(options.maxBandwidth());
    this.writer = new StreamWriter(socket, throttle);
    // So much that a low limit lets the destination hear of this side now and then.
    long share = options.maxBandwidth() / PIECES_PER_SECOND / Pages.SIZE;
    this.piecePages = options.maxBandwidth() == 0 ? PIECE_PAGES : Math.clamp(share, 1, PIECE_PAGES);
    this.timeLimitNanos = MigrationOptions.nanos(options.timeLimit());
    long bytes = 0;
    for (RamBlockLog log : tracker.logs()) {
      bytes += log.block().bytes();
    }
    this.ramBytes = bytes;
    checkNames();
    startNanos = System.nanoTime();
    prepareResults();
  }

  /** What is wrong with a section is said now, not once the guest is stopped. */
  private void checkNames() {
    Set<String> names = new HashSet<>(Set.of("ram/0"));
    for (OutgoingDevice device : devices) {
      StreamWriter.checkSectionName(device.name());
      checkNew(names, device.name(), device.instance());
    }
    for (StateSection section : sections) {
      checkNew(names, section.name(), section.instance());
    }
  }

  private static void checkNew(Set<String> names, String name, int instance) {
    if (!names.add(name + "/" + instance)) {
      throw new IllegalArgumentException("two sections " + name + "/" + instance);
    }
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
    // The one wakes a sender that waits for its limit, the other whoever waits for the other side.
    throttle.limit(0);
    endConnection();
    return true;
  }

  /**
   * Runs the migration to its end, once.
   *
   * <p>An interrupt before go cancels; after go it changes nothing. The status is set afterwards.
   *
   * @return how it ended; failures of the connection, the destination, the sources and the
   *     callbacks are outcomes, not exceptions, whatever they throw: where the guest is must not
   *     get lost. An {@link Error} is logged besides
   * @throws IllegalStateException if it was called before; then nothing happens
   */
  public MigrationResult run() {
    synchronized (this) {
      if (runner != null) {
        throw new IllegalStateException("a migration runs once, and this one did");
      }
      runner = Thread.currentThread();
    }
    startNanos = System.nanoTime();
    Watchdog watchdog = null;
    Throwable failure = null;
    try {
      sources = tracker.sourceNames();
      reserve = new byte[RESERVE_BYTES];
      checkCancelled();
      socket.limitWaits(Duration.ofNanos(MigrationOptions.nanos(options.answerLimit())));
      answers = new ReturnPath(socket);
      observer = Observer.start(listener);
      watchdog = Watchdog.start(this::look);
      throttle.waitUntilAtMost(startNanos + timeLimitNanos);
      if (options.atLimit() == AtLimit.FAIL) {
        setDeadline(startNanos + timeLimitNanos);
      }
      open();
      precopy();
      switchOver();
      go();
    } catch (Throwable e) {
      failure = e;
    }
    // For whoever else needs memory from here on, too.
    reserve = null;
    // Callbacks may wait, and the guest has to be looked after: no interrupt until that is done.
    boolean interrupted = Thread.interrupted();
    boolean mine;
    synchronized (this) {
      ended = true;
      mine = !gone;
      cancelled |= mine && interrupted;
    }
    unwind(mine);
    close(watchdog);
    close(observer);
    close(answers);
    close(writer);
    interrupted |= Thread.interrupted();
    MigrationResult result = result(failure);
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
    return result;
  }

  private MigrationResult result(Throwable failure) {
    Outcome outcome = outcome(failure);
    boolean notResumed = stepFailures[2 * devices.length] != null;
    String reason;
    try {
      reason = failure == null ? "" : reason(failure);
      reason += stepsThatFailed(outcome, reason.isEmpty());
      log(failure);
    } catch (Throwable e) {
      boolean well = failure == null;
      for (Throwable step : stepFailures) {
        well &= step == null;
      }
      reason = notResumed ? NO_WORDS_NOR_GUEST : well ? "" : NO_WORDS;
    }
    try {
      return result(outcome, reason);
    } catch (Throwable e) {
      return (notResumed ? preparedStopped : prepared)[outcome.ordinal()];
    }
  }

  /** What the end needs if there is no memory then, with the counts as they are now. */
  private void prepareResults() {
    for (int i = 0; i < OUTCOMES.length; i++) {
      prepared[i] = result(OUTCOMES[i], OUTCOMES[i] == Outcome.COMPLETED ? "" : NO_WORDS);
      preparedStopped[i] = result(OUTCOMES[i], NO_WORDS_NOR_GUEST);
    }
  }

  private MigrationResult result(Outcome outcome, String reason) {
    return new MigrationResult(
        outcome,
        reason,
        sources,
        Bitmaps.inUse(),
        round,
        ramBytes,
        writer.pagesWritten(),
        writer.zeroPagesWritten(),
        writer.bytesWritten(),
        tracker.failures(),
        expectedAtStop,
        stoppedNanos,
        writer.firstPageNanos() == 0 ? -1 : writer.firstPageNanos() - startNanos,
        System.nanoTime() - startNanos);
  }

  /** Frees what the migration had; if that fails, it still has ended as it has. */
  private static void close(AutoCloseable resource) {
    try {
      if (resource != null) {
        resource.close();
      }
    } catch (Throwable e) {
      Failures.log(System.Logger.Level.WARNING, "the cleanup after a migration", e);
    }
  }

  private void log(Throwable failure) {
    if (failure != null && !(failure instanceof Abandoned)) {
      Failures.log(
          failure instanceof Error ? System.Logger.Level.WARNING : System.Logger.Level.DEBUG,
          "a migration",
          failure);
    }
    for (Throwable step : stepFailures) {
      if (step != null) {
        Failures.log(System.Logger.Level.WARNING, "a step back from a migration", step);
      }
    }
  }

  private synchronized void setDeadline(long nanoTime) {
    deadline = nanoTime;
    hasDeadline = true;
  }

  /** Called now and then by the watchdog: ends the wait of a thread that is to come back. */
  private synchronized void look() {
    if (ended || gone) {
      return;
    }
    if (runner.isInterrupted()) {
      cancel();
    } else if (hasDeadline && System.nanoTime() - deadline >= 0) {
      late = true;
      endConnection();
    }
  }

  /** Wakes whoever waits for the other side. A socket that is closed has done that. */
  private void endConnection() {
    try {
      socket.shutdown();
    } catch (ClosedException e) {
      // That is an end, too.
    }
  }

  private void open() {
    // Before anything is said: a tracker in use is nobody else's to start or stop.
    tracker.claim();
    claimed = true;
    List<RamBlock> blocks = tracker.logs().stream().map(RamBlockLog::block).toList();
    writer.begin(options.machine());
    if (options.returnPath()) {
      writer.openReturnPath();
      acknowledged();
    }
    tracker.start();
    writer.startRam(blocks);
    devicesStarted = true;
    for (int i = 0; i < deviceIds.length; i++) {
      OutgoingDevice device = devices[i];
      device.start();
      deviceIds[i] =
          writer.start(device.name(), device.instance(), device.version(), device::setup);
    }
  }

  /** Sends rounds until the rest is small enough to stop the guest, or a limit says so. */
  private void precopy() {
    while (true) {
      harvest();
      expectedNanos = estimate.nanos(tracker.pagesAtStop(dirtyPages), deviceBytes());
      report(Progress.Phase.HARVESTED);
      if (expectedNanos <= MigrationOptions.nanos(options.downtimeLimit()) && initialDataSent()) {
        expectedAtStop = expectedNanos;
        break;
      }
      if (round == options.maxRounds() || timeIsUp()) {
        atLimit();
        break;
      }
      round++;
      long zeros = writer.zeroPagesWritten();
      writer.beginRound();
      boolean complete = send();
      writer.endRound();
      long sent = System.nanoTime();
      if (!complete || !sendDevices()) {
        atLimit();
        break;
      }
      acknowledged();
      long now = System.nanoTime();
      // What the destination does with the pages counts, unless it had a device's data to take in.
      estimate.round(
          dirtyPages,
          writer.zeroPagesWritten() - zeros,
          (deviceIds.length == 0 ? now : sent) - roundStart);
      sample(now, windowStart == roundStart);
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
      bytes += Math.min(devices[i].pendingBytes(), Long.MAX_VALUE / 4 / deviceIds.length);
    }
    return bytes;
  }

  private boolean initialDataSent() {
    for (int i = 0; i < deviceIds.length; i++) {
      if (!devices[i].initialDataSent()) {
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
      OutgoingDevice device = devices[i];
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
    return System.nanoTime() - startNanos >= timeLimitNanos;
  }

  private void atLimit() {
    if (options.atLimit() == AtLimit.FAIL) {
      throw new Abandoned(notConverging());
    }
    forced = true;
  }

  private void harvest() {
    checkCancelled();
    long before = System.nanoTime();
    if (guestStopped) {
      tracker.lastSync();
    } else {
      tracker.syncUnprotected();
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
      RamBlockLog log = logs.get(i);
      RunCursor runs = log.epoch().runs();
      for (int found = runs.batch(); found > 0; found = runs.batch()) {
        for (int run = 0; run < found; run++) {
          if (!send(log, runs.start(run), runs.length(run))) {
            return false;
          }
        }
      }
    }
    return true;
  }

  private boolean send(RamBlockLog log, long first, long count) {
    long end = first + count;
    long most = guestStopped ? PIECE_PAGES : piecePages;
    for (long page = first; page < end; page += most) {
      long some = Math.min(most, end - page);
      if (!guestStopped && tracker.protect(log, page, some)) {
        writer.forgetHoles();
      }
      writer.pages(log.block(), page, some);
      if (most < PIECE_PAGES) {
        writer.flush();
      }
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
      if (!tracker.isTracking()) {
        // The cursor notices with its next batch, which a long run may be far from.
        throw new ClosedException("the tracker of this migration");
      }
      report(guestStopped ? Progress.Phase.STOPPED : Progress.Phase.SENDING);
    }
  }

  /** Waits until the destination has taken in everything up to here. */
  private void acknowledged() {
    if (options.returnPath()) {
      int id = pingIds.nextInt();
      answers.expectNothingBefore("PING");
      writer.ping(id);
      answers.awaitPong(id, answerMillis());
    } else {
      writer.flush();
    }
  }

  private void switchOver() {
    synchronized (this) {
      checkCancelled();
      hasDeadline = false;
    }
    prepareResults();
    guestStopped = true;
    guest.stop();
    stoppedNanos = System.nanoTime();
    if (!forced) {
      setDeadline(stoppedNanos + MigrationOptions.nanos(options.stopLimit()));
    }
    for (OutgoingDevice device : devices) {
      device.quiesce();
    }
    for (OutgoingDevice device : devices) {
      device.stop();
    }
    List<SavedSection> saved = new ArrayList<>();
    for (StateSection section : sections) {
      SavedSection buffer = new SavedSection();
      section.save().accept(buffer);
      saved.add(buffer);
    }
    throttle.limit(0);
    harvest();
    bytesAtStop = writer.bytesWritten();
    round++;
    report(Progress.Phase.STOPPED);
    writer.beginRound();
    send();
    writer.endRound();
    writer.endRam();
    for (int i = 0; i < deviceIds.length; i++) {
      writer.end(deviceIds[i], devices[i]::complete);
    }
    for (int i = 0; i < sections.size(); i++) {
      StateSection section = sections.get(i);
      byte[] data = saved.get(i).toByteArray();
      writer.full(section.name(), section.instance(), section.version(), out -> out.bytes(data));
    }
    acknowledged();
    tracker.commit();
  }

  private void go() {
    if (options.returnPath()) {
      answers.expectNothingBefore("go");
    }
    prepareResults();
    synchronized (this) {
      checkCancelled();
      // From here on: even half of the byte that says go may have arrived.
      gone = true;
    }
    writer.eof();
    if (!options.returnPath()) {
      // A QEMU does not finish before it has this, or the end of the connection.
      writer.description("{\"page_size\": " + Pages.SIZE + ", \"devices\": []}");
      return;
    }
    int status = answers.awaitShut(answerMillis());
    if (status != 0) {
      synchronized (this) {
        refused = true;
      }
      throw new Abandoned("SHUT " + status);
    }
  }

  private int answerMillis() {
    long millis = MigrationOptions.nanos(options.answerLimit()) / 1_000_000;
    return Math.clamp(millis, 1, Integer.MAX_VALUE);
  }

  private synchronized void checkCancelled() {
    if (Thread.currentThread().isInterrupted()) {
      cancelled = true;
    }
    if (cancelled) {
      throw new Abandoned("cancelled");
    }
    if (late || hasDeadline && System.nanoTime() - deadline >= 0) {
      late = true;
      throw new Abandoned("too late");
    }
  }

  private synchronized Outcome outcome(Throwable failure) {
    if (failure == null) {
      return Outcome.COMPLETED;
    }
    if (gone) {
      return refused ? Outcome.NOWHERE : Outcome.UNKNOWN;
    }
    return cancelled ? Outcome.CANCELLED : Outcome.FAILED;
  }

  private synchronized String reason(Throwable failure) {
    String text = Failures.text(failure);
    if (refused) {
      return "the guest runs nowhere: the destination was told to go, and answers that it could not"
          + " run it and nothing runs there ("
          + text
          + "); it is stopped at the source, with its memory and state";
    }
    if (gone) {
      return "the destination was told to go and did not confirm: it may run the guest, so this side"
          + " does not ("
          + text
          + ")";
    }
    if (cancelled) {
      return "cancelled";
    }
    if (late) {
      return guestStopped ? stoppedTooLong() : notConverging();
    }
    if (failure instanceof LinuxException linux && linux.errno() == Errno.EAGAIN) {
      return "the destination took in nothing for "
          + duration(MigrationOptions.nanos(options.answerLimit()))
          + " ("
          + text
          + ")";
    }
    return text;
  }

  private String stoppedTooLong() {
    return String.format(
        Locale.ROOT,
        "the guest was stopped for longer than the stop limit of %s, and was resumed here: %d bytes of the last copy were written in that time, where %d ms of downtime were expected",
        duration(MigrationOptions.nanos(options.stopLimit())),
        writer.bytesWritten() - bytesAtStop,
        expectedAtStop / 1_000_000);
  }

  private static String duration(long nanos) {
    return nanos < 10_000_000_000L ? nanos / 1_000_000 + " ms" : nanos / 1_000_000_000 + " s";
  }

  /**
   * Leaves this side as the outcome says: the devices stopped, or all of them ready to run before
   * the first runs, and then the guest. Each step is tried. Allocates nothing, for the failure may
   * be that there is no memory.
   */
  private void unwind(boolean mine) {
    int count = devices.length;
    for (int i = 0; devicesStarted && i < count; i++) {
      try {
        if (mine) {
          devices[i].prepareToRun();
        } else {
          devices[i].leave();
        }
      } catch (Throwable e) {
        stepFailures[i] = e;
      }
    }
    for (int i = 0; devicesStarted && mine && i < count; i++) {
      try {
        devices[i].run();
      } catch (Throwable e) {
        stepFailures[count + i] = e;
      }
    }
    if (mine && guestStopped) {
      try {
        guest.resume();
      } catch (Throwable e) {
        stepFailures[2 * count] = e;
      }
    }
    try {
      if (claimed) {
        tracker.release();
      }
    } catch (Throwable e) {
      stepFailures[2 * count + 1] = e;
    }
  }

  private String stepsThatFailed(Outcome outcome, boolean first) {
    StringBuilder text = new StringBuilder();
    boolean running = outcome == Outcome.FAILED || outcome == Outcome.CANCELLED;
    int count = devices.length;
    for (int i = 0; i < stepFailures.length; i++) {
      if (stepFailures[i] == null) {
        continue;
      }
      text.append(first && text.isEmpty() ? "" : "; ");
      if (i < 2 * count) {
        text.append(devices[i % count].name())
            .append(running ? ", back to running: " : ", to be left stopped: ");
      } else {
        text.append(
            i == 2 * count
                ? "and the guest could not be resumed: "
                : "tracking could not be turned off: ");
      }
      text.append(Failures.text(stepFailures[i]));
    }
    return text.toString();
  }

  private String notConverging() {
    String limit =
        timeIsUp()
            ? "after " + duration(timeLimitNanos)
            : "after " + options.maxRounds() + " rounds";
    RuntimeException source = tracker.lastFailure();
    // In round one nothing was expected at the harvest, but some speed may be known by now.
    long expected =
        expectedNanos != Long.MAX_VALUE
            ? expectedNanos
            : estimate.nanos(tracker.pagesAtStop(dirtyPages), deviceBytes());
    return String.format(
        Locale.ROOT,
        "%s there are still %d dirty pages, %s, over the limit of %d ms%s%s: allow more %sbandwidth, more downtime, or the final stop",
        limit,
        dirtyPages,
        expected == Long.MAX_VALUE
            ? "and no speed was measured yet"
            : expected / 1_000_000 + " ms of downtime at " + speed(estimate.bytesPerSecond()),
        MigrationOptions.nanos(options.downtimeLimit()) / 1_000_000,
        options.maxBandwidth() == 0
            ? ""
            : ", with a bandwidth limit of " + speed(options.maxBandwidth()),
        source == null
            ? ""
            : "; a source failed " + tracker.failures() + " times, last: " + source.getMessage(),
        timeIsUp() ? "time, more " : "");
  }

  private static String speed(long bytesPerSecond) {
    return bytesPerSecond < 10_000_000
        ? bytesPerSecond / 1000 + " kB/s"
        : bytesPerSecond / 1_000_000 + " MB/s";
  }

  private void report(Progress.Phase phase) {
    observer.accept(
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
}
