package dev.tidemark.engine.migrate;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.engine.stream.StreamReader;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Socket;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CancellationException;
import java.util.concurrent.locks.LockSupport;

/**
 * Receives a guest: loads its memory and state, answers, waits for go, and only then lets it run.
 *
 * <p>Threading: {@link #run()} occupies one platform thread; {@link #cancel()} from any other, or
 * an interrupt of that thread, ends it.
 */
public final class IncomingMigration {
  /** How long the source may be silent, unless the caller says otherwise. */
  public static final Duration IDLE_LIMIT = Duration.ofSeconds(60);

  private static final int MAX_TRIES = 20;
  private static final long PAUSE_NANOS = 50_000_000;
  private static final int SOME_BYTES = 4096;

  // Made before they are needed: then there may be no memory.
  private static final IncomingResult TOLD = new IncomingResult(true, "");
  private static final IncomingResult NOT_TOLD =
      new IncomingResult(false, "the source could not be told, and why cannot be put into words");

  private final Socket socket;
  private final StreamReader reader;
  private final IncomingDevice[] devices;
  private final GuestControl guest;
  private final Duration idleLimit;

  /** Given up when the guest runs, for what comes then. */
  private byte[] reserve;

  // Guarded by this: cancel and go exclude each other.
  private Thread runner;
  private boolean cancelled;
  private boolean over;

  /**
   * For a guest without devices that have a state of their own to load.
   *
   * @param machine the machine's name, which must be the source's
   * @param blocks the destination's RAM blocks, the same names and lengths as the source's
   * @param socket connected to the source; stays the caller's
   * @param handlers one per state section that the source may send
   * @param guest resumed after go, never stopped
   */
  public IncomingMigration(
      String machine,
      List<RamBlock> blocks,
      Socket socket,
      List<SectionHandler> handlers,
      GuestControl guest) {
    this(machine, blocks, socket, List.of(), handlers, guest);
  }

  /**
   * With an idle limit of {@link #IDLE_LIMIT}.
   *
   * @param machine the machine's name, which must be the source's
   * @param blocks the destination's RAM blocks, the same names and lengths as the source's
   * @param socket connected to the source; stays the caller's
   * @param devices load their state, and run after go, right before the guest
   * @param handlers one per state section that the source may send
   * @param guest resumed after go, never stopped
   */
  public IncomingMigration(
      String machine,
      List<RamBlock> blocks,
      Socket socket,
      List<? extends IncomingDevice> devices,
      List<SectionHandler> handlers,
      GuestControl guest) {
    this(machine, blocks, socket, devices, handlers, guest, IDLE_LIMIT);
  }

  /**
   * @param machine the machine's name, which must be the source's
   * @param blocks the destination's RAM blocks, the same names and lengths as the source's
   * @param socket connected to the source; stays the caller's, but keeps the limit on its waits
   * @param devices load their state, and run after go, right before the guest
   * @param handlers one per state section that the source may send
   * @param guest resumed after go, never stopped
   * @param idleLimit how long the source may send nothing, or take no answer, before it counts as
   *     gone; it is silent while it syncs, stops its guest or saves a section, and between two
   *     writes under a bandwidth limit
   */
  public IncomingMigration(
      String machine,
      List<RamBlock> blocks,
      Socket socket,
      List<? extends IncomingDevice> devices,
      List<SectionHandler> handlers,
      GuestControl guest,
      Duration idleLimit) {
    this.socket = Objects.requireNonNull(socket, "socket");
    this.reader = new StreamReader(socket, machine, blocks, devices, handlers);
    this.devices = devices.toArray(IncomingDevice[]::new);
    this.guest = Objects.requireNonNull(guest, "guest");
    MigrationOptions.positive(idleLimit, "idle limit");
    this.idleLimit = idleLimit;
  }

  /**
   * Asks the migration to end, before or while it runs. Then {@link #run()} throws {@link
   * CancellationException}, unless the source had said go by then.
   *
   * @return false if the source has said go, or it has ended
   */
  public synchronized boolean cancel() {
    if (over) {
      return false;
    }
    cancelled = true;
    try {
      // Wakes a read or a write that waits for the other side.
      socket.shutdown();
    } catch (ClosedException e) {
      // That is an end, too.
    }
    return true;
  }

  private synchronized void look() {
    if (runner.isInterrupted()) {
      cancel();
    }
  }

  /**
   * Loads the guest and runs it, once. From the return of {@link GuestControl#resume()} on nothing
   * is thrown: the guest runs here, whatever becomes of the connection.
   *
   * <p>An interrupt before go cancels; after go it changes nothing. The status is set afterwards.
   *
   * @return that the guest runs here, and whether the source knows
   * @throws CancellationException if {@link #cancel()} or an interrupt ended it; nothing runs here
   * @throws IllegalStateException if it was called before, in which case nothing happens; or after
   *     go, if a device or the guest could not be run, in which case it runs nowhere: the source
   *     was told, if it could be
   * @throws RuntimeException if the guest was not taken over: the stream is not what it should be,
   *     ended early, stopped for longer than the idle limit, or a handler refused; nothing runs
   *     here. An {@link Error} that a handler throws means the same
   */
  public IncomingResult run() {
    synchronized (this) {
      if (runner != null) {
        throw new IllegalStateException("a migration runs once, and this one did");
      }
      runner = Thread.currentThread();
    }
    boolean interrupted = false;
    try {
      load();
      interrupted = Thread.interrupted();
      return takeOver();
    } finally {
      close(reader);
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  /** Frees what the migration had; if that fails, it still has ended as it has. */
  private static void close(StreamReader reader) {
    try {
      reader.close();
    } catch (Throwable e) {
      Failures.log(System.Logger.Level.WARNING, "the cleanup after a migration", e);
    }
  }

  private void load() {
    try (var _ = Watchdog.start(this::look)) {
      reserve = new byte[OutgoingMigration.RESERVE_BYTES];
      checkCancelled();
      socket.limitWaits(idleLimit);
      reader.loadUntilHandover();
      synchronized (this) {
        over = true;
      }
    } catch (Throwable e) {
      boolean interrupted = Thread.interrupted();
      boolean asked;
      synchronized (this) {
        over = true;
        asked = cancelled || interrupted;
      }
      abort(e);
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
      if (asked) {
        throw cancellation(e);
      }
      throw e;
    }
  }

  private synchronized void checkCancelled() {
    if (cancelled) {
      throw new CancellationException("cancelled");
    }
  }

  private static CancellationException cancellation(Throwable cause) {
    CancellationException cancellation =
        new CancellationException("cancelled: nothing of the guest runs here");
    cancellation.initCause(cause);
    return cancellation;
  }

  /** Has every device forget. Allocates nothing: the failure may be that there is no memory. */
  private void abort(Throwable failure) {
    for (int i = 0; i < devices.length; i++) {
      try {
        devices[i].abort();
      } catch (Throwable again) {
        Failures.add(failure, again);
      }
    }
  }

  private IncomingResult takeOver() {
    try {
      for (IncomingDevice device : devices) {
        device.prepareToRun();
      }
      for (IncomingDevice device : devices) {
        device.run();
      }
      guest.resume();
    } catch (Throwable e) {
      reserve = null;
      // The source hears that nothing runs here, so that has to be true first.
      abort(e);
      awaitMemory();
      try {
        reader.shut(1);
      } catch (Throwable again) {
        Failures.add(e, again);
      }
      throw new IllegalStateException(
          "the source has handed the guest over, but it cannot run here, so it runs nowhere: "
              + Failures.text(e),
          e);
    }
    reserve = null;
    awaitMemory();
    try {
      reader.shut(0);
      return TOLD;
    } catch (Throwable e) {
      return notTold(e);
    }
  }

  /**
   * Tries to allocate until it succeeds, for a second at most, after the reserve was let go for
   * what has to be said now. A collector that had nothing but a full heap to collect refuses
   * although there is memory again, until its share of the time has fallen (G1,
   * UseGCOverheadLimit). In this class, as no other could be loaded now.
   */
  private void awaitMemory() {
    for (int i = 0; i < MAX_TRIES; i++) {
      try {
        reserve = new byte[SOME_BYTES];
        reserve = null;
        return;
      } catch (OutOfMemoryError e) {
        LockSupport.parkNanos(PAUSE_NANOS);
      }
    }
  }

  private static IncomingResult notTold(Throwable failure) {
    try {
      return new IncomingResult(false, Failures.text(failure));
    } catch (Throwable e) {
      return NOT_TOLD;
    }
  }
}
