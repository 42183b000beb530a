package dev.tidemark.engine.migrate;

import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.engine.stream.StreamReader;
import dev.tidemark.ffm.NativeAccess;
import dev.tidemark.ffm.Socket;
import java.util.List;

/**
 * Receives a guest: loads its memory and state, answers, waits for go, and only then lets it run.
 *
 * <p>Threading: {@link #run()} occupies one platform thread; shutting the socket down from another
 * ends it.
 */
public final class IncomingMigration {
  private final StreamReader reader;
  private final List<IncomingDevice> devices;
  private final GuestControl guest;

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
    this.reader = new StreamReader(socket, machine, blocks, devices, handlers);
    this.devices = List.copyOf(devices);
    this.guest = guest;
  }

  /**
   * Loads the guest and runs it.
   *
   * @throws RuntimeException if the guest was not taken over: the stream is not what it should be,
   *     ended early, or a handler refused; nothing runs here then
   */
  public void run() {
    // Pages come in thousands at once: looking for zeros must not start interpreted.
    Bitmaps.warmUpZeroPages();
    NativeAccess.warmUp();
    try (reader) {
      load();
    }
  }

  private void load() {
    try {
      reader.loadUntilHandover();
    } catch (RuntimeException | Error e) {
      for (IncomingDevice device : devices) {
        try {
          device.abort();
        } catch (RuntimeException again) {
          e.addSuppressed(again);
        }
      }
      throw e;
    }
    try {
      devices.forEach(IncomingDevice::prepareToRun);
      devices.forEach(IncomingDevice::run);
      guest.resume();
    } catch (RuntimeException e) {
      reader.shut(1);
      throw e;
    }
    reader.shut(0);
  }
}
