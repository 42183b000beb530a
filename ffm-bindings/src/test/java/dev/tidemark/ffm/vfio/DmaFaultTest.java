package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.vfio.DmaLab.BASE;
import static dev.tidemark.ffm.vfio.DmaLab.PAGE;
import static dev.tidemark.ffm.vfio.DmaLab.at;
import static dev.tidemark.ffm.vfio.DmaLab.pages;
import static dev.tidemark.ffm.vfio.DmaLab.refused;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.InCall;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.internal.Libc;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.FailNth;
import dev.tidemark.ffm.lab.LabDevices;
import dev.tidemark.ffm.lab.MockIommu;
import dev.tidemark.ffm.lab.MttyDevice;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** A device that writes, while memory, processes and the device itself go away. */
@Tag("lab-mock")
class DmaFaultTest {
  private static final Path DRIVER = Path.of("/sys/bus/platform/drivers/dmalog");

  /** A process that is killed while its device writes, a mark waits, and a report for that. */
  static final class Victim {
    public static void main(String[] args) throws IOException {
      DmaLab lab = new DmaLab(DmaDevice.FULL);
      lab.start();
      lab.device.program(BASE, DmaLab.BYTES, 8, 1);
      lab.device.run(0);
      while (lab.device.writes() < 100) {
        Thread.onSpinWait();
      }
      lab.device.holdMarks();
      new Thread(() -> lab.write(1)).start();
      while (lab.device.inFlight() < 2) {
        Thread.onSpinWait();
      }
      new Thread(lab::report).start();
      System.out.println("writing");
      System.in.read();
    }
  }

  /** A process that has other processes' devices write. */
  static final class Commander {
    private static final int PIDFD_OPEN = 434;
    private static final int PIDFD_GETFD = 438;

    /** Of a process, and its descriptors of devices; says in a line each how that went. */
    public static void main(String[] args) {
      long process = Libc.check(Libc.syscall(PIDFD_OPEN, Long.parseLong(args[0]), 0, 0), "pidfd");
      for (String number : List.of(args).subList(1, args.length)) {
        long device = Libc.syscall(PIDFD_GETFD, process, Long.parseLong(number), 0);
        try {
          DmaDevice.borrow((int) Libc.check(device, "pidfd_getfd")).write(at(3), 33);
          System.out.println("written");
        } catch (LinuxException e) {
          System.out.println(Errno.name(e.errno()));
        }
      }
    }
  }

  private static Process java(Class<?> main, String... arguments) throws IOException {
    List<String> command =
        new ArrayList<>(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "@" + System.getProperty("tidemark.root") + "/jdk-flags.txt"));
    command.addAll(List.of("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx64m"));
    command.addAll(List.of("-cp", System.getProperty("java.class.path"), main.getName()));
    command.addAll(List.of(arguments));
    return new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
  }

  /** An address space has the memory of who mapped it; a container only takes who is that. */
  @Test
  void anotherProcessCommandsTheDevice() throws IOException, InterruptedException {
    try (DmaLab lab = new DmaLab(DmaDevice.PLAIN);
        VfioContainer container = VfioContainer.open();
        VfioGroup group = VfioGroup.open(DmaDevice.names(DmaDevice.PRE_COPY).group());
        Mapping memory = Mapping.anonymous(8 * PAGE)) {
      group.setContainer(container);
      container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
      try (DmaDevice device = DmaDevice.open(DmaDevice.PRE_COPY, group)) {
        container.mapDma(BASE, memory.segment().address(), 8 * PAGE, 3);
        container.setDirtyTracking(true);
        container.getDirtyBitmap(BASE, 8 * PAGE, PAGE, lab.bitmap.segment());
        device.vfio().dmaLoggingStart(PAGE, List.of(DmaLab.range(0, 8)));
        lab.start();
        Process commander =
            java(
                Commander.class,
                Long.toString(ProcessHandle.current().pid()),
                Integer.toString(lab.vfio.fd().acquire()),
                Integer.toString(device.vfio().fd().acquire()));
        try {
          assertEquals("written", commander.inputReader().readLine());
          assertEquals("EFAULT", commander.inputReader().readLine());
        } finally {
          commander.destroyForcibly().waitFor();
          device.vfio().fd().release();
          lab.vfio.fd().release();
        }
        assertEquals(33, lab.memory.segment().get(ValueLayout.JAVA_LONG, 3 * PAGE));
        assertEquals(pages(3), lab.report());
        // Nothing was written, and nothing was lost: the device's log has too much, if anything.
        assertEquals(0, memory.segment().get(ValueLayout.JAVA_LONG, 3 * PAGE));
        assertEquals(Errno.EFAULT, device.lastError());
        lab.bitmap.segment().fill((byte) 0);
        container.getDirtyBitmap(BASE, 8 * PAGE, PAGE, lab.bitmap.segment());
        assertEquals(new BitSet(), DmaLab.bits(lab.bitmap.segment()));
        device.vfio().dmaLoggingReport(BASE, 8 * PAGE, PAGE, lab.bitmap.segment());
        assertEquals(pages(3), DmaLab.bits(lab.bitmap.segment()));
      }
    }
  }

  private static BitSet scan(Pagemap pagemap, MemorySegment memory) {
    BitSet written = new BitSet();
    long end = memory.address() + memory.byteSize();
    for (long at = memory.address(); at < end; at = pagemap.walkEnd()) {
      int regions = pagemap.scan(Pagemap.Query.TAKE_WRITTEN, at, end);
      for (int i = 0; i < regions; i++) {
        written.set(
            (int) ((pagemap.start(i) - memory.address()) / PAGE),
            (int) ((pagemap.end(i) - memory.address()) / PAGE));
      }
    }
    return written;
  }

  /** What is copied to the process by its page tables is a write of the process; DMA is none. */
  @Test
  void theProcessesOwnTrackingDoesNotSeeWhatGoesThroughPinnedPages() {
    try (DmaLab lab = new DmaLab(DmaDevice.PLAIN);
        Userfaultfd userfaultfd = Userfaultfd.open(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC);
        Pagemap pagemap = Pagemap.open(DmaLab.PAGES);
        Arena arena = Arena.ofConfined()) {
      MemorySegment memory = lab.memory.segment();
      MockIommu mock = new MockIommu(lab.iommufd);
      // Its page table pins all that is mapped.
      mock.addDevice(lab.ioas, 0);
      userfaultfd.register(memory.address(), memory.byteSize());
      userfaultfd.writeProtect(memory.address(), memory.byteSize(), true);
      lab.start();
      for (int page = 0; page < 100; page++) {
        lab.write(page * 7);
      }
      BitSet seen = scan(pagemap, memory);
      assertEquals(lab.report(), seen);
      assertEquals(100, seen.cardinality());
      try (MockIommu.Access hardware = mock.access(lab.ioas)) {
        MemorySegment data = arena.allocateFrom(ValueLayout.JAVA_LONG, 11, 12);
        for (int page = 0; page < 100; page++) {
          hardware.writePinned(DmaLab.at(page * 7 + 1) - 8, data);
          assertEquals(12, memory.get(ValueLayout.JAVA_LONG, (page * 7 + 1) * PAGE));
        }
        assertEquals(new BitSet(), scan(pagemap, memory));
        hardware.write(DmaLab.at(5), data);
        assertEquals(pages(5), scan(pagemap, memory));
      }
    }
  }

  @Test
  void aProcessIsKilledAndItsDeviceOpensAsNew() throws IOException, InterruptedException {
    Process victim = java(Victim.class);
    try {
      assertEquals("writing", victim.inputReader().readLine());
      DmaLab[] busy = new DmaLab[1];
      assertThrows(LinuxException.class, () -> busy[0] = new DmaLab(DmaDevice.FULL));
    } finally {
      victim.destroyForcibly().waitFor();
    }
    try (DmaLab lab = new DmaLab(DmaDevice.FULL)) {
      assertEquals(0, lab.device.writes());
      assertEquals(0, lab.device.logging());
      assertFalse(lab.device.isRunning());
      lab.start();
      lab.write(3);
      assertEquals(pages(3), lab.report());
    }
  }

  private static void driver(String command, LabDevices device) {
    try {
      Files.writeString(DRIVER.resolve(command), device.name());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Test
  void aDeviceThatIsTakenAwayWorksUntilItIsClosed() throws InterruptedException {
    LabDevices names = DmaDevice.names(DmaDevice.STOP_COPY);
    Thread taker = new Thread(() -> driver("unbind", names));
    try (DmaLab lab = new DmaLab(DmaDevice.STOP_COPY)) {
      lab.start();
      taker.start();
      while (lab.device.removalRequests() == 0) {
        Thread.sleep(1);
      }
      lab.write(5);
      assertEquals(pages(5), lab.report());
      assertThrows(LinuxException.class, () -> VfioDevice.open(names.cdev()));
      assertTrue(taker.isAlive(), "who takes it away waits");
    }
    taker.join();
    refused(Errno.ENOENT, () -> VfioDevice.open(names.cdev()));
    driver("bind", names);
    try (DmaLab lab = new DmaLab(DmaDevice.STOP_COPY)) {
      lab.start();
      lab.write(6);
      assertEquals(pages(6), lab.report());
    }
  }

  @Test
  void memoryGoesAwayWhileTheDeviceWrites() throws InterruptedException {
    try (DmaLab lab = new DmaLab(DmaDevice.PLAIN)) {
      lab.start();
      lab.device.program(BASE, DmaLab.BYTES, 8, 4);
      lab.device.run(0);
      BitSet seen = new BitSet();
      for (int i = 0; i < 10; i++) {
        long errors = lab.device.errors();
        lab.ioas.unmap(BASE, DmaLab.BYTES);
        seen.or(lab.report());
        while (lab.device.errors() == errors) {
          Thread.sleep(1);
        }
        assertEquals(Errno.ENOENT, lab.device.lastError());
        lab.map();
        long writes = lab.device.writes();
        while (lab.device.writes() == writes) {
          Thread.sleep(1);
        }
      }
      lab.device.pause();
      seen.or(lab.report());
      BitSet missing = lab.written();
      missing.andNot(seen);
      assertEquals(new BitSet(), missing);
    }
  }

  @Test
  void aPageTableAndADeviceReportIntoOneBitmap() {
    try (DmaLab lab = new DmaLab(DmaDevice.PLAIN)) {
      MockIommu mock = new MockIommu(lab.iommufd);
      MockIommu.Device behind = mock.addDevice(lab.ioas, 0);
      Hwpt table =
          lab.iommufd.allocHwpt(
              behind.deviceId(), lab.ioas, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
      mock.replace(behind, table);
      table.setDirtyTracking(true);
      lab.start();
      for (int page = 0; page < 20; page++) {
        mock.dirty(table, DmaLab.at(page * 7));
      }
      for (int page = 0; page < 33; page++) {
        lab.write(page * 7 + 1);
      }
      lab.bitmap.segment().fill((byte) 0);
      table.getDirtyBitmap(BASE, DmaLab.BYTES, PAGE, 0, lab.bitmap.segment());
      assertEquals(20, DmaLab.bits(lab.bitmap.segment()).cardinality(), "not the other's");
      lab.vfio.dmaLoggingReport(BASE, DmaLab.BYTES, PAGE, lab.bitmap.segment());
      assertEquals(53, DmaLab.bits(lab.bitmap.segment()).cardinality());
    }
  }

  @Test
  void eachStepOfTheLogThatCanFailIsSurvived() {
    try (DmaLab lab = new DmaLab(DmaDevice.PLAIN)) {
      FailNth.sweep(lab::start, lab.vfio::dmaLoggingStop);
      lab.start();
      FailNth.sweep(
          () -> {
            lab.bitmap.segment().fill((byte) 0);
            lab.write(1, 500);
          },
          () -> lab.vfio.dmaLoggingReport(BASE, DmaLab.BYTES, PAGE, lab.bitmap.segment()),
          () -> assertEquals(pages(1, 500), DmaLab.bits(lab.bitmap.segment())));
      lab.vfio.detach();
      FailNth.sweep(() -> lab.vfio.attach(lab.ioas), lab.vfio::detach);
    }
  }

  /** Asking, stopping, detaching and resetting take no step that can fail. */
  @Test
  void whatTakesNoStepThatCanFailIsDoneAtOnce() {
    try (DmaLab lab = new DmaLab(DmaDevice.FULL)) {
      Map<String, Runnable> calls =
          Map.of(
              "get MIGRATION", lab.vfio::migrationFlags,
              "get MIG_DEVICE_STATE", lab.vfio::migDeviceState,
              "get MIG_DATA_SIZE", lab.vfio::migDataSize,
              "DMA_LOGGING_STOP", lab.vfio::dmaLoggingStop,
              "DETACH", lab.vfio::detach,
              "RESET", lab.vfio::reset,
              "GET_INFO", lab.vfio::info);
      calls.forEach(
          (name, call) -> {
            // The first time loads the classes.
            call.run();
            assertFalse(FailNth.run(1, call), name);
          });
      lab.vfio.attach(lab.ioas);
      lab.start();
      lab.write(5);
      assertEquals(pages(5), lab.report());
    }
  }

  /** Reading, writing and asking what is left take no step that can fail, with either driver. */
  @Test
  void aStreamTakesNoStepThatCanFail() throws IOException {
    try (DmaLab lab = new DmaLab(DmaDevice.FULL);
        MttyDevice mtty = new MttyDevice(2, lab.iommufd);
        Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(1 << 16);
      for (VfioDevice device : List.of(lab.vfio, mtty.vfio())) {
        long bytes;
        try (VfioMigrationStream stream =
            device.setMigDeviceState(VfioUapi.VFIO_DEVICE_STATE_PRE_COPY).orElseThrow()) {
          // The first of each loads the classes.
          stream.precopyInfo();
          assertFalse(FailNth.run(1, stream::precopyInfo), "VFIO_MIG_GET_PRECOPY_INFO");
          bytes = stream.read(state.asSlice(0, 8));
          long[] read = new long[1];
          assertFalse(FailNth.run(1, () -> read[0] = stream.read(state.asSlice(8, 8))), "read");
          bytes += read[0];
          device.setMigDeviceState(VfioUapi.VFIO_DEVICE_STATE_STOP_COPY);
          do {
            long at = bytes;
            assertFalse(FailNth.run(1, () -> read[0] = stream.read(state.asSlice(at))), "read");
            bytes += read[0];
          } while (read[0] > 0);
        }
        device.setMigDeviceState(VfioUapi.VFIO_DEVICE_STATE_STOP);
        try (VfioMigrationStream stream =
            device.setMigDeviceState(VfioUapi.VFIO_DEVICE_STATE_RESUMING).orElseThrow()) {
          stream.write(state.asSlice(0, 8));
          MemorySegment rest = state.asSlice(8, bytes - 8);
          assertFalse(FailNth.run(1, () -> stream.write(rest)), "write");
        }
        device.setMigDeviceState(VfioUapi.VFIO_DEVICE_STATE_RUNNING);
      }
    }
  }

  @Test
  void eachStepOfABindThatCanFailIsSurvived() {
    try (DmaLab lab = new DmaLab(DmaDevice.PLAIN)) {
      VfioDevice[] device = new VfioDevice[1];
      String path = DmaDevice.names(DmaDevice.STOP_COPY).cdev();
      FailNth.sweep(
          () -> device[0] = VfioDevice.open(path),
          () -> device[0].bindIommufd(lab.iommufd),
          () -> {
            assertEquals(VfioUapi.VFIO_DEVICE_STATE_RUNNING, device[0].migDeviceState());
            device[0].close();
          });
    }
  }

  @Test
  void aStreamThatFailsToOpenIsOpenedFromTheStateBefore() {
    try (DmaLab lab = new DmaLab(DmaDevice.FULL)) {
      @SuppressWarnings({"unchecked", "rawtypes"})
      Optional<VfioMigrationStream>[] stream = new Optional[1];
      for (int state :
          new int[] {
            VfioUapi.VFIO_DEVICE_STATE_STOP_COPY,
            VfioUapi.VFIO_DEVICE_STATE_RESUMING,
            VfioUapi.VFIO_DEVICE_STATE_PRE_COPY
          }) {
        FailNth.sweep(
            () -> lab.vfio.setMigDeviceState(VfioUapi.VFIO_DEVICE_STATE_RUNNING),
            () -> {
              // The kernel may have reached the state and failed to hand out the stream.
              if (lab.vfio.migDeviceState() == state) {
                lab.vfio.reset();
              }
              stream[0] = lab.vfio.setMigDeviceState(state);
            },
            () -> {
              stream[0].orElseThrow().close();
              lab.vfio.reset();
            });
      }
    }
  }

  /** The descriptor is the call's until that is over; nothing that comes later reaches it. */
  @Test
  void aDeviceIsClosedWhileAReportWaitsForAMark() throws InterruptedException {
    try (DmaLab lab = new DmaLab(DmaDevice.FULL);
        DmaDevice kept = lab.device.share()) {
      lab.start();
      lab.write(3);
      kept.holdMarks();
      Thread writer = new Thread(() -> lab.write(9));
      writer.start();
      while (kept.inFlight() == 0) {
        Thread.sleep(1);
      }
      BitSet[] seen = new BitSet[1];
      Thread reporter = new Thread(() -> seen[0] = lab.report());
      reporter.start();
      InCall.await(reporter, "ioctl");
      lab.device.close();
      assertThrows(ClosedException.class, () -> lab.write(10));
      kept.releaseMarks();
      writer.join();
      reporter.join();
      assertEquals(pages(3, 9), seen[0]);
      assertThrows(ClosedException.class, lab::report);
    }
    try (DmaLab lab = new DmaLab(DmaDevice.FULL)) {
      assertEquals(0, lab.device.logging());
    }
  }

  @Test
  void idsOfWhatIsGoneAreRefused() {
    try (DmaLab lab = new DmaLab(DmaDevice.PLAIN);
        VfioDevice other = VfioDevice.open(DmaDevice.names(DmaDevice.FULL).cdev())) {
      Ioas gone = lab.iommufd.allocIoas();
      Ioas stale = lab.iommufd.borrowIoas(gone.id());
      gone.close();
      refused(Errno.ENOENT, () -> lab.vfio.attach(stale));
      lab.start();
      lab.write(5);
      assertEquals(pages(5), lab.report(), "attached as before");
      MockIommu mock = new MockIommu(lab.iommufd);
      MockIommu.Device behind = mock.addDevice(lab.ioas, 0);
      mock.removeDevice(behind);
      refused(Errno.ENOENT, () -> lab.iommufd.allocHwpt(behind.deviceId(), lab.ioas, 0));
      refused(Errno.ENOENT, () -> lab.iommufd.getHwInfo(behind.deviceId()));
      refused(Errno.EBADF, () -> other.bindIommufd(Iommufd.borrow(1 << 20)));
      other.bindIommufd(lab.iommufd);
    }
  }

  @Test
  void aDeviceWithoutAPageTableTakesAnAddressSpaceOnly() {
    try (DmaLab lab = new DmaLab(DmaDevice.PLAIN)) {
      MockIommu mock = new MockIommu(lab.iommufd);
      MockIommu.Device behind = mock.addDevice(lab.ioas, 0);
      try (Hwpt table = lab.iommufd.allocHwpt(behind.deviceId(), lab.ioas, 0)) {
        refused(Errno.ENOENT, () -> lab.vfio.attach(table));
      }
      assertEquals(lab.ioas.id(), lab.vfio.attach(lab.ioas));
      mock.removeDevice(behind);
    }
  }

  @Test
  void aGroupIsOpenOnce() {
    String path = DmaDevice.names(DmaDevice.PRE_COPY).group();
    try (VfioGroup group = VfioGroup.open(path)) {
      assertEquals(VfioUapi.VFIO_GROUP_FLAGS_VIABLE, group.status());
      refused(Errno.EBUSY, () -> VfioGroup.open(path));
    }
    VfioGroup.open(path).close();
  }

  /** Which no call here sends. */
  @Test
  void featuresThatAreAskedForWronglyAreRefused() {
    int logging = VfioUapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP;
    int get = VfioUapi.VFIO_DEVICE_FEATURE_GET;
    int set = VfioUapi.VFIO_DEVICE_FEATURE_SET;
    int probe = VfioUapi.VFIO_DEVICE_FEATURE_PROBE;
    int[][] table = {
      // size, flags, answer
      {8, logging | set | 1 << 19, -Errno.EINVAL},
      {8, logging | set | get, -Errno.EINVAL},
      {8, logging, -Errno.EINVAL},
      {4, logging | set, -Errno.EINVAL},
      {8, 999 | probe, -Errno.ENOTTY},
      {8, 999 | get, -Errno.ENOTTY},
      {8, logging | probe | set, 0},
    };
    try (DmaLab lab = new DmaLab(DmaDevice.PLAIN);
        Arena arena = Arena.ofConfined()) {
      MemorySegment argument = arena.allocate(16, 8);
      for (int[] row : table) {
        argument.set(ValueLayout.JAVA_INT, 0, row[0]);
        argument.set(ValueLayout.JAVA_INT, 4, row[1]);
        assertEquals(
            row[2],
            Ioctl.tryCall(lab.vfio.fd(), VfioUapi.VFIO_DEVICE_FEATURE, argument),
            Integer.toHexString(row[1]));
      }
    }
  }

  @Test
  void aContainerTakesSoManyMappingsAndSoLargeABitmap() throws IOException {
    Path limit = Path.of("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit");
    String before = Files.readString(limit);
    Files.writeString(limit, "4");
    try (VfioContainer container = VfioContainer.open();
        VfioGroup group = VfioGroup.open(DmaDevice.names(DmaDevice.PRE_COPY).group());
        Mapping memory = Mapping.anonymous(8 * PAGE);
        Arena arena = Arena.ofConfined()) {
      group.setContainer(container);
      container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
      long address = memory.segment().address();
      for (int i = 0; i < 4; i++) {
        container.mapDma(BASE + 2 * i * PAGE, address + i * PAGE, PAGE, 3);
      }
      assertEquals(0, container.info().mappingsLeft().orElseThrow());
      DmaLab.says(
          "fewer mappings",
          refused(Errno.ENOSPC, () -> container.mapDma(BASE + 9 * PAGE, address, PAGE, 3)));
      container.unmapDma(BASE, PAGE);
      container.mapDma(BASE + 9 * PAGE, address, PAGE, 3);
      container.setDirtyTracking(true);
      MemorySegment query = arena.allocate(48, 8);
      long largest = container.info().migration().orElseThrow().maxDirtyBitmapSize();
      query.set(ValueLayout.JAVA_INT, 0, 48);
      query.set(ValueLayout.JAVA_INT, 4, VfioUapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP);
      query.set(ValueLayout.JAVA_LONG, 8, BASE + 2 * PAGE);
      query.set(ValueLayout.JAVA_LONG, 16, PAGE);
      query.set(ValueLayout.JAVA_LONG, 24, PAGE);
      query.set(ValueLayout.JAVA_LONG, 40, address);
      for (long bytes : new long[] {largest + 8, largest}) {
        query.set(ValueLayout.JAVA_LONG, 32, bytes);
        assertEquals(
            bytes > largest ? -Errno.EINVAL : 0,
            Ioctl.tryCall(container.fd(), VfioUapi.VFIO_IOMMU_DIRTY_PAGES, query));
      }
    } finally {
      Files.writeString(limit, before.strip());
    }
  }
}
