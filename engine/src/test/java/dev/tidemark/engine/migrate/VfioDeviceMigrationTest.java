package dev.tidemark.engine.migrate;

import static dev.tidemark.ffm.vfio.VfioUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.device.IncomingVfioDevice;
import dev.tidemark.engine.device.OutgoingVfioDevice;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.engine.stream.SectionInput;
import dev.tidemark.engine.stream.SectionOutput;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.MttyDevice;
import dev.tidemark.ffm.vfio.VfioDevice;
import dev.tidemark.ffm.vfio.VfioMigrationStream;
import java.io.ByteArrayOutputStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A guest with VFIO devices, whose state goes in the stream of its RAM, from device to device. */
@Tag("lab-mock")
@Timeout(300)
class VfioDeviceMigrationTest {
  private static final long PAGES = 1024;
  private static final String PATH = "0000:00:02.0";
  private static final MigrationOptions OPTIONS =
      MigrationOptions.DEFAULT.withLimits(30, Duration.ofMinutes(2), AtLimit.STOP_AND_COPY);

  private Iommufd iommufd;
  private WritingGuest source;
  private WritingGuest destination;
  private DirtyTracker tracker;
  private Socket sourceEnd;
  private Socket destinationEnd;

  @BeforeEach
  void open() {
    iommufd = Iommufd.open();
    source = new WritingGuest("ram", PAGES, 1, 11);
    destination = new WritingGuest("ram", PAGES, 0, 0);
    source.fill();
    source.resume();
    tracker = new DirtyTracker(List.of(source.block()));
    tracker.add(new PagemapScanSource(tracker.logs()));
    try (Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0))) {
      sourceEnd = Socket.connect(listener.localAddress());
      destinationEnd = listener.accept();
    }
  }

  @AfterEach
  void close() {
    tracker.close();
    source.close();
    destination.close();
    sourceEnd.close();
    destinationEnd.close();
    iommufd.close();
  }

  /** How the two ends saw it; no failure at the destination is an empty text. */
  private record Ends(MigrationResult result, String failure) {}

  private Ends migrate(List<OutgoingDevice> from, List<IncomingDevice> to) throws Exception {
    CompletableFuture<String> arrival = new CompletableFuture<>();
    Thread.ofPlatform()
        .daemon()
        .start(
            () -> {
              try {
                new IncomingMigration(
                        OPTIONS.machine(),
                        List.of(destination.block()),
                        destinationEnd,
                        to,
                        List.of(),
                        destination)
                    .run();
                arrival.complete("");
              } catch (RuntimeException e) {
                destinationEnd.shutdown();
                arrival.complete(e.toString());
              }
            });
    MigrationResult result =
        new OutgoingMigration(tracker, sourceEnd, source, from, List.of(), OPTIONS, p -> {}).run();
    sourceEnd.shutdown();
    return new Ends(result, arrival.get(200, TimeUnit.SECONDS));
  }

  private static byte[] stopCopy(VfioDevice device) {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    try (VfioMigrationStream stream =
            device.setMigDeviceState(VFIO_DEVICE_STATE_STOP_COPY).orElseThrow();
        Arena arena = Arena.ofConfined()) {
      MemorySegment buffer = arena.allocate(4096);
      for (long length = stream.read(buffer); length > 0; length = stream.read(buffer)) {
        all.writeBytes(buffer.asSlice(0, length).toArray(JAVA_BYTE));
      }
    }
    device.setMigDeviceState(VFIO_DEVICE_STATE_STOP);
    return all.toByteArray();
  }

  private void assertArrived(Ends ends) {
    assertEquals(Outcome.COMPLETED, ends.result.outcome(), ends.result.reason());
    assertEquals("", ends.failure);
    assertEquals(-1, source.block().memory().mismatch(destination.block().memory()));
    assertTrue(destination.isRunning());
    assertFalse(source.isRunning());
  }

  private void assertStayed(Ends ends, VfioDevice device) {
    assertEquals(Outcome.FAILED, ends.result.outcome(), ends.result.reason());
    assertTrue(source.isRunning());
    assertFalse(destination.isRunning());
    assertEquals(VFIO_DEVICE_STATE_RUNNING, device.migDeviceState());
    assertFalse(ends.failure.isEmpty());
  }

  private static void use(MttyDevice device) {
    for (int port = 0; port < 2; port++) {
      device.write(port, MttyDevice.SCRATCH, 0x5a + port);
      for (int i = 0; i < 7 + port; i++) {
        device.write(port, MttyDevice.DATA, 0x30 + 16 * port + i);
      }
    }
  }

  private static void assertUsed(MttyDevice device) {
    for (int port = 0; port < 2; port++) {
      assertEquals(0x5a + port, device.read(port, MttyDevice.SCRATCH));
      for (int i = 0; i < 7 + port; i++) {
        assertEquals(0x30 + 16 * port + i, device.read(port, MttyDevice.DATA));
      }
    }
  }

  @Test
  void mttysStateArrivesByteForByteInTheStreamOfTheRam() throws Exception {
    try (MttyDevice from = new MttyDevice(2, iommufd);
        MttyDevice to = new MttyDevice(2, iommufd)) {
      use(from);
      OutgoingVfioDevice outgoing = new OutgoingVfioDevice(PATH, from.vfio());
      assertArrived(migrate(List.of(outgoing), List.of(new IncomingVfioDevice(PATH, to.vfio()))));
      assertTrue(outgoing.preCopyBytes() > 0, "some of it while the guest ran");
      assertTrue(outgoing.stopCopyBytes() > 0, "the rest with the guest stopped");
      assertEquals(96, outgoing.preCopyBytes() + outgoing.stopCopyBytes());
      assertEquals(VFIO_DEVICE_STATE_STOP, from.vfio().migDeviceState());
      assertEquals(VFIO_DEVICE_STATE_RUNNING, to.vfio().migDeviceState());
      assertArrayEquals(stopCopy(from.vfio()), stopCopy(to.vfio()));
      to.vfio().setMigDeviceState(VFIO_DEVICE_STATE_RUNNING);
      assertUsed(to);
    }
  }

  @Test
  void aDeviceOfAnotherSizeIsRefusedAndTheGuestStays() throws Exception {
    try (MttyDevice from = new MttyDevice(2, iommufd);
        MttyDevice to = new MttyDevice(1, iommufd)) {
      use(from);
      byte[] fresh = stopCopy(to.vfio());
      to.vfio().setMigDeviceState(VFIO_DEVICE_STATE_RUNNING);
      Ends ends =
          migrate(
              List.of(new OutgoingVfioDevice(PATH, from.vfio())),
              List.of(new IncomingVfioDevice(PATH, to.vfio())));
      assertStayed(ends, from.vfio());
      assertUsed(from);
      assertArrayEquals(fresh, stopCopy(to.vfio()));
    }
  }

  @Test
  void aSectionThatTheDestinationDoesNotKnowFailsAtOnce() throws Exception {
    try (MttyDevice from = new MttyDevice(2, iommufd)) {
      use(from);
      Ends ends = migrate(List.of(new OutgoingVfioDevice(PATH, from.vfio())), List.of());
      assertStayed(ends, from.vfio());
      assertTrue(ends.failure.contains("expected ram, found " + PATH + "/vfio"), ends.failure);
      assertEquals(0, source.stops(), "the guest need not be stopped for that");
      assertUsed(from);
    }
  }

  @Test
  void stateThatIsCutOffIsNoticedBeforeGo() throws Exception {
    try (MttyDevice from = new MttyDevice(2, iommufd);
        MttyDevice to = new MttyDevice(2, iommufd)) {
      use(from);
      OutgoingDevice cut =
          new ForwardingDevice(new OutgoingVfioDevice(PATH, from.vfio())) {
            @Override
            public void complete(SectionOutput out) {
              out.be64(0xffff_ffff_ef10_0001L);
            }
          };
      Ends ends = migrate(List.of(cut), List.of(new IncomingVfioDevice(PATH, to.vfio())));
      assertStayed(ends, from.vfio());
      assertTrue(ends.failure.contains("to STOP, is in RESUMING"), ends.failure);
      assertEquals(VFIO_DEVICE_STATE_RUNNING, to.vfio().migDeviceState());
      assertUsed(from);
    }
  }

  @Test
  void theDestinationFailsInTheMiddleAndTheDeviceGoesOn() throws Exception {
    try (MttyDevice from = new MttyDevice(2, iommufd);
        MttyDevice to = new MttyDevice(2, iommufd)) {
      use(from);
      IncomingVfioDevice good = new IncomingVfioDevice(PATH, to.vfio());
      IncomingDevice bad =
          new IncomingDevice() {
            @Override
            public String name() {
              return good.name();
            }

            @Override
            public int instance() {
              return good.instance();
            }

            @Override
            public int version() {
              return good.version();
            }

            @Override
            public void start() {
              good.start();
            }

            @Override
            public void load(SectionInput input) {
              good.load(input);
            }

            @Override
            public void end() {
              throw new IllegalStateException("planted");
            }

            @Override
            public void prepareToRun() {
              good.prepareToRun();
            }

            @Override
            public void run() {
              good.run();
            }

            @Override
            public void abort() {
              good.abort();
            }
          };
      Ends ends = migrate(List.of(new OutgoingVfioDevice(PATH, from.vfio())), List.of(bad));
      assertStayed(ends, from.vfio());
      assertTrue(ends.failure.contains("planted"), ends.failure);
      assertEquals(1, source.stops());
      assertUsed(from);
    }
  }

  @Test
  void largeStateWithMoreOfItInEachRoundArrives() throws Exception {
    try (DmaDevice from = DmaDevice.open(DmaDevice.FULL, iommufd);
        DmaDevice to = DmaDevice.open(DmaDevice.FULL_TOO, iommufd)) {
      from.state(3 << 20, 5);
      OutgoingVfioDevice outgoing = new OutgoingVfioDevice(PATH, from.vfio());
      assertArrived(migrate(List.of(outgoing), List.of(new IncomingVfioDevice(PATH, to.vfio()))));
      assertTrue(outgoing.preCopyBytes() > 0);
      assertArrayEquals(stopCopy(from.vfio()), stopCopy(to.vfio()));
    }
  }

  @Test
  void aDeviceThatFailsToStopIsResetAndTheGuestGoesOn() throws Exception {
    try (DmaDevice from = DmaDevice.open(DmaDevice.FULL, iommufd);
        DmaDevice to = DmaDevice.open(DmaDevice.FULL_TOO, iommufd)) {
      OutgoingDevice failing =
          new ForwardingDevice(new OutgoingVfioDevice(PATH, from.vfio())) {
            @Override
            public void stop() {
              from.failNextState(Errno.EIO);
              super.stop();
            }
          };
      Ends ends = migrate(List.of(failing), List.of(new IncomingVfioDevice(PATH, to.vfio())));
      assertStayed(ends, from.vfio());
      assertTrue(ends.result.reason().contains("is in ERROR"), ends.result.reason());
      assertTrue(ends.result.reason().contains("was reset"), ends.result.reason());
    }
  }
}
