# The block design: processing system, core, resets, interrupt controller, and what joins them.

create_project -force $project [file join $work_dir project] -part $part
if {$board_definition ne ""} {
    set found [get_board_parts -quiet -latest_file_version $board_definition]
    if {[llength $found] == 0} {
        error "Vivado has no board definition $board_definition; add it in Tools > Vivado Store (Boards), then start again."
    }
    set_property board_part [lindex $found 0] [current_project]
}
set_property ip_repo_paths [list $ip_dir] [current_project]
update_ip_catalog
create_bd_design $design

# The processing system. After this: clk, rstn, gp, irq name its pins; memory_clocks those of the memory ports.
if {$family eq "zynq7"} {
    create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7 $ps
    apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 -config {make_external "FIXED_IO, DDR"} [get_bd_cells $ps]
    set configuration [list CONFIG.PCW_CRYSTAL_PERIPHERAL_FREQMHZ {50} CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ $clock_mhz \
        CONFIG.PCW_EN_CLK0_PORT {1} CONFIG.PCW_EN_RST0_PORT {1} CONFIG.PCW_USE_M_AXI_GP0 {1} \
        CONFIG.PCW_USE_FABRIC_INTERRUPT {1} CONFIG.PCW_IRQ_F2P_INTR {1}]
    set clk $ps/FCLK_CLK0
    set rstn $ps/FCLK_RESET0_N
    set gp $ps/M_AXI_GP0
    set gp_clock $ps/M_AXI_GP0_ACLK
    set irq $ps/IRQ_F2P
    set memory_clocks {}
    foreach port $memory_ports {
        set number [string index $port end]
        lappend configuration CONFIG.PCW_USE_S_AXI_HP$number {1} CONFIG.PCW_S_AXI_HP${number}_DATA_WIDTH $data_width
        lappend memory_clocks $ps/S_AXI_HP${number}_ACLK
    }
} else {
    create_bd_cell -type ip -vlnv xilinx.com:ip:zynq_ultra_ps_e $ps
    apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e -config {apply_board_preset "1"} [get_bd_cells $ps]
    set configuration [list CONFIG.PSU__FPGA_PL0_ENABLE {1} CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $clock_mhz \
        CONFIG.PSU__USE__M_AXI_GP0 {1} CONFIG.PSU__USE__M_AXI_GP1 {0} CONFIG.PSU__USE__M_AXI_GP2 {0} \
        CONFIG.PSU__MAXIGP0__DATA_WIDTH {32} CONFIG.PSU__USE__IRQ0 {1}]
    set clk $ps/pl_clk0
    set rstn $ps/pl_resetn0
    set gp $ps/M_AXI_HPM0_FPD
    set gp_clock $ps/maxihpm0_fpd_aclk
    set irq $ps/pl_ps_irq0
    set memory_clocks {}
    foreach port $memory_ports {
        # HP0 to HP3 are called GP2 to GP5 in the settings.
        set number [string index $port 8]
        set setting [expr {$number + 2}]
        lappend configuration CONFIG.PSU__USE__S_AXI_GP$setting {1} CONFIG.PSU__SAXIGP${setting}__DATA_WIDTH $data_width
        lappend memory_clocks $ps/saxihp${number}_fpd_aclk
    }
}
set_property -dict $configuration [get_bd_cells $ps]

create_bd_cell -type ip -vlnv $vlnv $cell
create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset proc_sys_reset_0
create_bd_cell -type ip -vlnv xilinx.com:ip:axi_intc axi_intc_0
set_property -dict [list CONFIG.C_IRQ_CONNECTION {1}] [get_bd_cells axi_intc_0]
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect smartconnect_0
set_property -dict [list CONFIG.NUM_SI {1} CONFIG.NUM_MI {2}] [get_bd_cells smartconnect_0]

set clocked [list $gp_clock {*}$memory_clocks $cell/$clock proc_sys_reset_0/slowest_sync_clk axi_intc_0/s_axi_aclk smartconnect_0/aclk]
set resettable [list $cell/$reset axi_intc_0/s_axi_aresetn smartconnect_0/aresetn]

connect_bd_intf_net [get_bd_intf_pins $gp] [get_bd_intf_pins smartconnect_0/S00_AXI]
connect_bd_intf_net [get_bd_intf_pins smartconnect_0/M00_AXI] [get_bd_intf_pins $cell/$registers]
connect_bd_intf_net [get_bd_intf_pins smartconnect_0/M01_AXI] [get_bd_intf_pins axi_intc_0/s_axi]

# One way to memory for each manager. A core that speaks AXI3 needs nothing between it and a port of a Zynq-7000.
set number 1
foreach bus $managers port $memory_ports {
    if {$family eq "zynq7"} {
        connect_bd_intf_net [get_bd_intf_pins $cell/$bus] [get_bd_intf_pins $ps/$port]
    } else {
        create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect smartconnect_$number
        set_property -dict [list CONFIG.NUM_SI {1} CONFIG.NUM_MI {1}] [get_bd_cells smartconnect_$number]
        connect_bd_intf_net [get_bd_intf_pins $cell/$bus] [get_bd_intf_pins smartconnect_$number/S00_AXI]
        connect_bd_intf_net [get_bd_intf_pins smartconnect_$number/M00_AXI] [get_bd_intf_pins $ps/$port]
        lappend clocked smartconnect_$number/aclk
        lappend resettable smartconnect_$number/aresetn
    }
    incr number
}

foreach pin $clocked {
    connect_bd_net [get_bd_pins $clk] [get_bd_pins $pin]
}
connect_bd_net [get_bd_pins $rstn] [get_bd_pins proc_sys_reset_0/ext_reset_in]
foreach pin $resettable {
    connect_bd_net [get_bd_pins proc_sys_reset_0/peripheral_aresetn] [get_bd_pins $pin]
}
# pynq waits for interrupts of an interrupt controller, not of the processing system.
connect_bd_net [get_bd_pins $cell/$interrupt] [get_bd_pins axi_intc_0/intr]
connect_bd_net [get_bd_pins axi_intc_0/irq] [get_bd_pins $irq]

assign_bd_address -offset $base_address -range $range_bytes -target_address_space [get_bd_addr_spaces $ps/Data] \
    [get_bd_addr_segs $cell/$registers/reg0] -force
assign_bd_address -offset $interrupt_address -range $range_bytes -target_address_space [get_bd_addr_spaces $ps/Data] \
    [get_bd_addr_segs axi_intc_0/S_AXI/Reg] -force
assign_bd_address
validate_bd_design
save_bd_design
